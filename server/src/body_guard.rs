//! Keeps the unread rest of a request's body until the answer is sent.
//!
//! actix reads and discards the rest of a chunked body that nobody wants, for as long as the client
//! cares to send: such a connection stays open for ever. While the body is held here, actix takes it
//! for one that is still wanted, says `Connection: close`, and closes within a few seconds.

use std::{
    cell::RefCell,
    convert::Infallible,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll},
};

use actix_web::{
    HttpMessage,
    body::{BodySize, BoxBody, MessageBody},
    dev::{Payload, ServiceRequest},
    error::PayloadError,
    http::header,
    web::Bytes,
};
use futures_core::Stream;

/// The body of a request, if it is one of unknown length.
pub(crate) struct Unread(Option<Rc<RefCell<Payload>>>);

impl Unread {
    /// Takes hold of a request's body. Handlers read it as ever.
    pub(crate) fn of(request: &mut ServiceRequest) -> Self {
        if !request.headers().contains_key(header::TRANSFER_ENCODING) {
            return Self(None);
        }
        let payload = Rc::new(RefCell::new(request.take_payload()));
        let shared: Pin<Box<dyn Stream<Item = _>>> = Box::pin(SharedBody(Rc::clone(&payload)));
        request.set_payload(Payload::from(shared));
        Self(Some(payload))
    }

    /// The body of the answer, holding that of the request until it is sent.
    pub(crate) fn keep_until_sent(self, answer: BoxBody) -> BoxBody {
        match self.0 {
            Some(unread) => BoxBody::new(Holding { answer, _unread: unread }),
            None => answer,
        }
    }
}

/// The body as handlers read it.
struct SharedBody(Rc<RefCell<Payload>>);

impl Stream for SharedBody {
    type Item = Result<Bytes, PayloadError>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        Pin::new(&mut *self.0.borrow_mut()).poll_next(cx)
    }
}

/// An answer that holds the body of its request.
struct Holding {
    answer: BoxBody,
    _unread: Rc<RefCell<Payload>>,
}

impl MessageBody for Holding {
    type Error = Infallible;

    fn size(&self) -> BodySize {
        self.answer.size()
    }

    fn poll_next(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Bytes, Infallible>>> {
        match self.answer.as_pin_mut().poll_next(cx) {
            Poll::Ready(Some(Ok(bytes))) => Poll::Ready(Some(Ok(bytes))),
            // The answers of this server are bytes, which do not fail.
            Poll::Ready(Some(Err(_)) | None) => Poll::Ready(None),
            Poll::Pending => Poll::Pending,
        }
    }
}
