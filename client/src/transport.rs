//! The way of requests to the server: reqwest, with a client of its own or the app's, or any other way of the app's.

use std::{fmt, pin::Pin, sync::Arc, time::Duration};

use crate::BoxError;

/// The outcome of a step of an exchange, once it is there.
pub type TransportFuture<'a, T> = Pin<Box<dyn Future<Output = Result<T, BoxError>> + Send + 'a>>;

/// Carries signed requests to the server, and answers back. It changes neither.
///
/// Address, method, `content-type`, `content-digest`, `idempotency-key` and `authorization` are signed. A redirect is
/// an answer like others: one that follows it sends a request that is signed for another address.
pub trait Transport: Send + Sync {
    /// Sends a request, and returns the answer once its head is there. The whole exchange, the body of the answer
    /// included, has to end within `timeout`.
    ///
    /// # Errors
    ///
    /// Returns an error if no answer came: nobody knows then whether the server has carried the request out.
    fn send(
        &self,
        request: http::Request<Vec<u8>>,
        timeout: Duration,
    ) -> TransportFuture<'_, TransportResponse>;
}

/// An answer, whose body is still to come.
pub type TransportResponse = http::Response<Box<dyn ResponseBody>>;

/// The body of an answer, piece by piece.
pub trait ResponseBody: Send {
    /// The next piece, as soon as it is there; `None` at the end. Cancelling the wait loses nothing.
    ///
    /// # Errors
    ///
    /// Returns an error if the body breaks off.
    fn chunk(&mut self) -> TransportFuture<'_, Option<Vec<u8>>>;
}

/// A body that is there as a whole.
impl ResponseBody for Vec<u8> {
    fn chunk(&mut self) -> TransportFuture<'_, Option<Vec<u8>>> {
        let rest = std::mem::take(self);
        Box::pin(std::future::ready(Ok((!rest.is_empty()).then_some(rest))))
    }
}

impl fmt::Debug for dyn Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Transport")
    }
}

impl fmt::Debug for dyn ResponseBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ResponseBody")
    }
}

/// The transport of an app that gives none.
#[cfg(feature = "reqwest")]
pub(crate) fn default_transport() -> Result<Arc<dyn Transport>, BoxError> {
    Ok(Arc::new(ReqwestTransport::new()?))
}

/// The error of an app that gives no transport, and is built without one.
#[cfg(not(feature = "reqwest"))]
pub(crate) fn default_transport() -> Result<Arc<dyn Transport>, BoxError> {
    Err("this program is built without the feature `reqwest`; give a transport".into())
}

/// How many bytes the body of an answer has at most: several times those of the longest answer that a server gives, a
/// package for each of a thousand devices.
const BODY_BYTES_MAX: usize = 64 << 20;

/// An answer that is longer than any that a server gives.
#[derive(Debug, thiserror::Error)]
#[error("the answer has more than {BODY_BYTES_MAX} bytes; is it a keypool server at this address?")]
struct TooLongBody;

/// Reads the body of an answer to its end, which comes after [`BODY_BYTES_MAX`] bytes at the latest.
pub(crate) async fn read_to_end(mut body: Box<dyn ResponseBody>) -> Result<Vec<u8>, BoxError> {
    let mut bytes = Vec::new();
    while let Some(piece) = body.chunk().await? {
        if BODY_BYTES_MAX < bytes.len().saturating_add(piece.len()) {
            return Err(TooLongBody.into());
        }
        bytes.extend(piece);
    }
    Ok(bytes)
}

/// HTTP by reqwest.
#[cfg(feature = "reqwest")]
#[derive(Clone, Debug)]
pub struct ReqwestTransport(reqwest::Client);

#[cfg(feature = "reqwest")]
impl ReqwestTransport {
    /// With a client of its own, which follows no redirects.
    ///
    /// # Errors
    ///
    /// Returns reqwest's error if a client cannot be made; on a system without CA certificates it never can.
    pub fn new() -> Result<Self, reqwest::Error> {
        let client = reqwest::Client::builder().redirect(reqwest::redirect::Policy::none());
        client.build().map(Self)
    }

    /// With the app's own client: for its proxy, its certificates, its names. Let it follow no redirects
    /// (`reqwest::redirect::Policy::none()`): where it has followed one, the answer is refused.
    #[must_use]
    pub const fn with_client(client: reqwest::Client) -> Self {
        Self(client)
    }
}

#[cfg(feature = "reqwest")]
impl Transport for ReqwestTransport {
    fn send(
        &self,
        request: http::Request<Vec<u8>>,
        timeout: Duration,
    ) -> TransportFuture<'_, TransportResponse> {
        Box::pin(async move {
            let mut request = reqwest::Request::try_from(request)?;
            *request.timeout_mut() = Some(timeout);
            let asked = request.url().clone();
            let response = self.0.execute(request).await.map_err(reqwest::Error::without_url)?;
            if *response.url() != asked {
                return Err(format!(
                    "the HTTP client has followed a redirect to {}",
                    response.url()
                )
                .into());
            }
            let mut answer = http::Response::builder().status(response.status());
            if let Some(headers) = answer.headers_mut() {
                headers.clone_from(response.headers());
            }
            Ok(answer.body(Box::new(ReqwestBody(response)) as Box<dyn ResponseBody>)?)
        })
    }
}

#[cfg(feature = "reqwest")]
struct ReqwestBody(reqwest::Response);

#[cfg(feature = "reqwest")]
impl ResponseBody for ReqwestBody {
    fn chunk(&mut self) -> TransportFuture<'_, Option<Vec<u8>>> {
        Box::pin(async move {
            let piece = self.0.chunk().await.map_err(reqwest::Error::without_url)?;
            Ok(piece.map(Vec::from))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A body without an end.
    struct EndlessBody;

    impl ResponseBody for EndlessBody {
        fn chunk(&mut self) -> TransportFuture<'_, Option<Vec<u8>>> {
            Box::pin(std::future::ready(Ok(Some(vec![b' '; 1 << 20]))))
        }
    }

    #[tokio::test]
    async fn a_body_without_an_end_is_given_up() {
        let error = read_to_end(Box::new(EndlessBody)).await.unwrap_err();
        assert!(error.to_string().contains("more than 67108864 bytes"), "{error}");
        let whole = read_to_end(Box::new(b"whole".to_vec())).await.unwrap();
        assert_eq!(whole, b"whole");
    }
}
