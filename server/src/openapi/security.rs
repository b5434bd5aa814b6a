//! The signature that each operation asks for, as security schemes of the description.

use utoipa::{
    Modify,
    openapi::{
        OpenApi,
        path::PathItem,
        security::{
            ApiKey, ApiKeyValue, HttpAuthScheme, HttpBuilder, SecurityRequirement, SecurityScheme,
        },
    },
};

const DEVICE: &str = "deviceSignature";
const REGISTRATION: &str = "registrationToken";

/// The starts of the paths whose requests are signed.
const SIGNED: [&str; 5] = ["/devices", "/users", "/keypackages", "/groups", "/mailbox"];
/// The operation that may carry the operator's token beside the signature.
const REGISTER: &str = "/devices";

const DEVICE_TEXT: &str = "\
An HTTP message signature (RFC 9421) with the device's Ed25519 key, in the one profile that docs/api.md describes. \
`Signature-Input: kp=(COMPONENTS);created=SECONDS;keyid=\"KEY\";alg=\"ed25519\";expires=SECONDS;tag=\"keypool-v1\"` \
and `Signature: kp=:BASE64:`. The components are, in this order, `\"@method\" \"@authority\" \"@path\" \
\"content-type\" \"content-digest\" \"idempotency-key\"` with a body and `\"@method\" \"@authority\" \"@path\" \
\"@query\"` without, then `\"authorization\"` and `\"keypool-caller\"` where these headers are sent. `Content-Digest` \
is the body's `sha-256` (RFC 9530). `keyid` is the public key in base64url without padding; `expires` is 120 s after \
`created` at most. The app's backend signs with its frontend key and names the device, `USER/DEVICE`, in \
`Keypool-Caller`.";
const REGISTRATION_TEXT: &str =
    "The operator's token for the key that signs the request, with `--registration jwt`.";

/// Adds the security schemes, and says which operations ask for them.
pub(super) struct Security;

impl Modify for Security {
    fn modify(&self, document: &mut OpenApi) {
        let header = ApiKeyValue::with_description("Signature", DEVICE_TEXT);
        let bearer = HttpBuilder::new()
            .scheme(HttpAuthScheme::Bearer)
            .bearer_format("JWT")
            .description(Some(REGISTRATION_TEXT))
            .build();
        let components = document.components.get_or_insert_default();
        components.add_security_scheme(DEVICE, SecurityScheme::ApiKey(ApiKey::Header(header)));
        components.add_security_scheme(REGISTRATION, SecurityScheme::Http(bearer));
        let none = || -> [&str; 0] { [] };
        for (path, item) in &mut document.paths.paths {
            if !SIGNED.iter().any(|start| path.starts_with(start)) {
                continue;
            }
            let mut ways = vec![SecurityRequirement::new(DEVICE, none())];
            if path == REGISTER {
                ways.push(SecurityRequirement::new(DEVICE, none()).add(REGISTRATION, none()));
            }
            let PathItem { get, post, .. } = item;
            for operation in [get, post].into_iter().flatten() {
                operation.security = Some(ways.clone());
            }
        }
    }
}
