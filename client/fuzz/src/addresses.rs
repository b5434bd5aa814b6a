//! The address of a server, as a user types it or a link has it.

use std::{
    sync::{Arc, Mutex, OnceLock, PoisonError},
    time::Duration,
};

use ed25519_dalek::{Signature, Verifier, VerifyingKey};
use keypool_api::signing::{ReceivedSignature, SignedParts};
use keypool_client::{
    ApiClient, DeviceIdentity, SystemClock, Transport, TransportFuture, TransportResponse,
};

use super::{answers::block_on, device::scene};

/// Keeps the request that it was handed.
#[derive(Default)]
struct KeepingTransport(Mutex<Option<http::Request<Vec<u8>>>>);

impl Transport for KeepingTransport {
    fn send(
        &self,
        request: http::Request<Vec<u8>>,
        _timeout: Duration,
    ) -> TransportFuture<'_, TransportResponse> {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(request);
        Box::pin(std::future::ready(Err("nobody is there".into())))
    }
}

/// Makes the API of a server at an address. If the address is accepted, a request to it can be built, goes to the host
/// of the address alone, and is signed for that host as a server sees it.
pub fn address(bytes: &[u8]) {
    let Ok(text) = str::from_utf8(bytes) else { return };
    let transport = Arc::new(KeepingTransport::default());
    let kept = Arc::clone(&transport) as Arc<dyn Transport>;
    let Ok(api) = ApiClient::over(kept, text, identity(), Arc::new(SystemClock)) else { return };
    let error = block_on(api.stream(0)).expect_err("nobody has answered");
    let request = transport.0.lock().unwrap_or_else(PoisonError::into_inner).take();
    let request = request.unwrap_or_else(|| panic!("no request is built: {error}"));
    let uri = request.uri();
    assert!(matches!(uri.scheme_str(), Some("http" | "https")));
    assert_eq!(uri.path(), "/v1/keypackages/stream");
    // The `Host` that an HTTP library sends for this request.
    let host = uri.authority().expect("an address has a host").as_str();
    let header = |name| request.headers()[name].to_str().unwrap();
    let received = ReceivedSignature::parse(header("signature-input"), header("signature"));
    let received = received.expect("a request is signed");
    let parts = SignedParts {
        method: "GET",
        authority: host,
        path: uri.path(),
        query: "?after=0",
        body: None,
        authorization: None,
        caller: None,
    };
    let key = VerifyingKey::try_from(received.keyid.as_bytes()).unwrap();
    let signature = Signature::from_slice(&received.signature).unwrap();
    let is_right = key.verify(parts.base(&received.params).as_bytes(), &signature).is_ok();
    assert!(is_right, "a request to {host} is signed for another host");
}

fn identity() -> DeviceIdentity {
    static IDENTITY: OnceLock<DeviceIdentity> = OnceLock::new();
    IDENTITY.get_or_init(|| scene().alice.open().identity).clone()
}
