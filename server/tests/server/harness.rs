//! Devices that make packages and sign requests, and servers that run in the test or beside it.

use std::{
    io::{BufRead, BufReader, Read},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::Arc,
    time::Duration,
};

use data_encoding::BASE64;
use ed25519_dalek::{Signer, SigningKey};
use keypool_api::{
    ContactToken, DevicesReply, UserDevices,
    signing::{BodyParts, SignatureHeaders, SignedParts, content_digest},
};
use keypool_ledger::{
    Clock, Hash, ManualClock, PoolId, Signature, SignatureKey, SystemClock, Timestamp,
};
use keypool_projections::statement::{Agreement, Statement, contact_statement};
use keypool_server::{LowWater, Server, Settings};
use openmls::prelude::{
    BasicCredential, Capabilities, Ciphersuite, Credential, CredentialWithKey, Extension,
    ExtensionType, Extensions, KeyPackage, KeyPackageBuilder, Lifetime, UnknownExtension,
};
use openmls_basic_credential::SignatureKeyPair;
use openmls_rust_crypto::OpenMlsRustCrypto;
use openmls_traits::types::SignatureScheme;
use serde_json::{Value, json};
use tempfile::TempDir;
use tls_codec::Serialize;
use uuid::Uuid;

/// The moment at which clocks that are set by hand begin.
pub(crate) const NOW: Timestamp = Timestamp::from_secs(1_766_400_000);
/// A group's id, as it travels.
pub(crate) const GROUP: &str = "Z3JvdXAtMQ==";
/// An extension for private use, which makes packages large.
const BALLAST: u16 = 0xff01;

/// One device of one user, with the key that signs its packages and its requests.
#[derive(Clone)]
pub(crate) struct Device {
    pub(crate) pool: PoolId,
    pub(crate) key: SigningKey,
}

impl Device {
    /// The device of a name, `alice` or `alice/phone`; its key follows from the name.
    pub(crate) fn new(name: &str) -> Self {
        let key = SigningKey::from_bytes(Hash::of(name.as_bytes()).as_bytes());
        Self { pool: name.parse().unwrap(), key }
    }

    /// Another key that claims to be the same device.
    pub(crate) fn impostor(&self) -> Self {
        let key = SigningKey::from_bytes(Hash::of(&self.key.to_bytes()).as_bytes());
        Self { pool: self.pool.clone(), key }
    }

    /// The statement that this key agrees to a change, made on a user's device list as it is, and good for
    /// four minutes: its parts, as they travel.
    pub(crate) async fn states(
        &self,
        api: &Api,
        subject: &PoolId,
        agreement: Agreement<'_>,
    ) -> Value {
        let list = api.devices_of(self).await;
        let until = api.clock.now().after(Duration::from_mins(4));
        self.states_on(&list, subject, agreement, until)
    }

    /// The same on a device list that was fetched before.
    pub(crate) fn states_on(
        &self,
        list: &DevicesReply,
        subject: &PoolId,
        agreement: Agreement<'_>,
        until: Timestamp,
    ) -> Value {
        let until = Timestamp::from_secs(until.as_secs());
        let (ledger, by, head) = (&list.ledger, &self.keyid(), &list.devices.head);
        let statement = Statement { ledger, subject, by, agreement, head, until }.to_bytes();
        let proof = Signature::new(&self.key.sign(&statement).to_bytes()).unwrap();
        json!({ "head": list.devices.head, "until": until.as_secs(), "proof": proof })
    }

    /// The list of this device's user with a head, as far as statements name it.
    pub(crate) fn list_with(&self, head: Hash, ledger: &str) -> DevicesReply {
        let (user, ledger) = (self.pool.user().to_owned(), ledger.parse().unwrap());
        let (devices, history) = (Vec::new(), Vec::new());
        let devices = UserDevices { user, devices, head, position: 0, history, more: false };
        DevicesReply { devices, ledger, earlier_ledgers: Vec::new() }
    }

    /// The voucher of this device for another one of its user.
    pub(crate) async fn vouches_for(&self, api: &Api, other: &Self) -> Value {
        let key = other.keyid();
        let mut voucher = self.states(api, &other.pool, Agreement::Vouch(&key)).await;
        voucher["keyid"] = json!(self.keyid());
        voucher
    }

    /// The request by which the next key follows this one, with this one's statement.
    pub(crate) async fn agrees_to(&self, api: &Api, next: &Self) -> Value {
        let key = next.keyid();
        let mut rotation = self.states(api, &self.pool, Agreement::Rotate(&key)).await;
        rotation["user"] = json!(self.pool.user());
        rotation["device"] = json!(self.pool.device());
        rotation["previous_keyid"] = json!(self.keyid());
        rotation
    }

    /// A contact token of this device's user.
    pub(crate) async fn introduces(&self, api: &Api, until: Timestamp) -> ContactToken {
        let keyid = self.keyid();
        let ledger = api.devices_of(self).await.ledger;
        let statement = contact_statement(&ledger, self.pool.user(), &keyid, until);
        let proof = self.key.sign(&statement).to_bytes().to_vec();
        ContactToken { keyid, until: until.as_secs(), proof }
    }

    pub(crate) fn keyid(&self) -> SignatureKey {
        SignatureKey::new(self.key.verifying_key().as_bytes()).unwrap()
    }

    /// A package of ciphersuite 1 that is valid for 14 days from `now` on.
    pub(crate) fn package(&self, now: Timestamp) -> Vec<u8> {
        self.package_with(now, 14 * 24 * 3600, false)
    }

    pub(crate) fn package_with(&self, now: Timestamp, secs: u64, last_resort: bool) -> Vec<u8> {
        let lifetime = Lifetime::init(now.as_secs() - 3600, now.as_secs() + secs);
        let builder = KeyPackage::builder().key_package_lifetime(lifetime);
        self.build(if last_resort { builder.mark_as_last_resort() } else { builder })
    }

    /// A package of about 15 kB, which is nearly the most that is admitted.
    pub(crate) fn large_package(&self, now: Timestamp) -> Vec<u8> {
        let lifetime = Lifetime::init(now.as_secs() - 3600, now.as_secs() + 24 * 3600);
        let ballast = Extension::Unknown(BALLAST, UnknownExtension(vec![7; 15_000]));
        let extensions = Extensions::single(ballast).unwrap();
        let builder = KeyPackage::builder().key_package_lifetime(lifetime);
        self.build(builder.key_package_extensions(extensions))
    }

    fn build(&self, builder: KeyPackageBuilder) -> Vec<u8> {
        let (private, public) = (self.key.to_bytes().to_vec(), self.keyid().as_bytes().to_vec());
        let signer = SignatureKeyPair::from_raw(SignatureScheme::ED25519, private, public);
        let suite = Ciphersuite::MLS_128_DHKEMX25519_AES128GCM_SHA256_Ed25519;
        self.build_with(builder, suite, &signer)
    }

    /// A package of ciphersuite 2, signed by a P-256 key.
    pub(crate) fn p256_package(&self, now: Timestamp, signer: &SignatureKeyPair) -> Vec<u8> {
        let lifetime = Lifetime::init(now.as_secs() - 3600, now.as_secs() + 24 * 3600);
        let builder = KeyPackage::builder().key_package_lifetime(lifetime);
        let suite = Ciphersuite::MLS_128_DHKEMP256_AES128GCM_SHA256_P256;
        self.build_with(builder, suite, signer)
    }

    /// A package of ciphersuite 3, signed by this device's key.
    pub(crate) fn chacha_package(&self, now: Timestamp) -> Vec<u8> {
        let lifetime = Lifetime::init(now.as_secs() - 3600, now.as_secs() + 24 * 3600);
        let builder = KeyPackage::builder().key_package_lifetime(lifetime);
        let (private, public) = (self.key.to_bytes().to_vec(), self.keyid().as_bytes().to_vec());
        let signer = SignatureKeyPair::from_raw(SignatureScheme::ED25519, private, public);
        let suite = Ciphersuite::MLS_128_DHKEMX25519_CHACHA20POLY1305_SHA256_Ed25519;
        self.build_with(builder, suite, &signer)
    }

    fn build_with(
        &self,
        builder: KeyPackageBuilder,
        suite: Ciphersuite,
        signer: &SignatureKeyPair,
    ) -> Vec<u8> {
        let credential = BasicCredential::new(self.pool.user().as_bytes().to_vec());
        build_package(builder, suite, signer, credential.into())
    }

    /// A package of ciphersuite 1 with a credential of its own, signed by this device's key.
    pub(crate) fn package_carrying(&self, now: Timestamp, credential: Credential) -> Vec<u8> {
        let lifetime = Lifetime::init(now.as_secs() - 3600, now.as_secs() + 24 * 3600);
        let builder = KeyPackage::builder().key_package_lifetime(lifetime);
        let (private, public) = (self.key.to_bytes().to_vec(), self.keyid().as_bytes().to_vec());
        let signer = SignatureKeyPair::from_raw(SignatureScheme::ED25519, private, public);
        let suite = Ciphersuite::MLS_128_DHKEMX25519_AES128GCM_SHA256_Ed25519;
        build_package(builder, suite, &signer, credential)
    }

    pub(crate) fn packages(&self, now: Timestamp, count: usize) -> Vec<Vec<u8>> {
        (0..count).map(|_| self.package(now)).collect()
    }
}

fn build_package(
    builder: KeyPackageBuilder,
    suite: Ciphersuite,
    signer: &SignatureKeyPair,
    credential: Credential,
) -> Vec<u8> {
    let extensions = [ExtensionType::LastResort, ExtensionType::Unknown(BALLAST)];
    let types = [credential.credential_type()];
    let capabilities =
        Capabilities::new(None, Some(&[suite]), Some(&extensions), None, Some(&types));
    let builder = builder.leaf_node_capabilities(capabilities);
    let credential = CredentialWithKey { credential, signature_key: signer.public().into() };
    let provider = OpenMlsRustCrypto::default();
    let bundle = builder.build(suite, &provider, signer, credential).unwrap();
    bundle.key_package().tls_serialize_detached().unwrap()
}

/// A message of a group as an MLSMessage with a PrivateMessage: 1 is application data, 2 a proposal, 3 a
/// Commit. Its ciphertext is the words.
pub(crate) fn framed_for(group: &[u8], epoch: u64, content_type: u8, words: &str) -> Vec<u8> {
    let vector = |bytes: &[u8]| {
        let len = u32::try_from(bytes.len()).unwrap();
        // The shortest prefix, as MLS wants it (RFC 9420 section 2.1.2).
        let prefix = match len {
            0..64 => len << 24,
            64..16_384 => (len | 0x4000) << 16,
            _ => len | 0x8000_0000,
        };
        let prefix = &prefix.to_be_bytes()[..prefix_len(prefix.to_be_bytes()[0])];
        [prefix, bytes].concat()
    };
    let mut out = vec![0, 1, 0, 2];
    out.extend(vector(group));
    out.extend(epoch.to_be_bytes());
    out.push(content_type);
    out.extend([vector(b""), vector(b""), vector(words.as_bytes())].concat());
    out
}

/// How many bytes a length prefix has, by its first byte.
fn prefix_len(first: u8) -> usize {
    1 << (first >> 6)
}

/// The words of a message that [`framed_for`] has made.
pub(crate) fn unframed(bytes: &[u8]) -> Option<String> {
    let group_len = usize::from(*bytes.get(4)?);
    let (_, ciphertext) = bytes.split_at_checked(4 + 1 + group_len + 8 + 1 + 2)?;
    let skipped = prefix_len(*ciphertext.first()?);
    String::from_utf8(ciphertext[skipped..].to_vec()).ok()
}

/// The body of an upload.
pub(crate) fn upload(packages: &[Vec<u8>]) -> Value {
    let packages: Vec<String> = packages.iter().map(|bytes| BASE64.encode(bytes)).collect();
    json!({ "keypackages": packages })
}

/// A client of the API that signs for whichever device asks.
#[derive(Clone)]
pub(crate) struct Api {
    pub(crate) http: reqwest::Client,
    pub(crate) url: String,
    pub(crate) clock: Arc<dyn Clock>,
}

/// A request before it is signed, each part of which a test may spoil.
#[derive(Clone)]
pub(crate) struct Draft {
    pub(crate) method: &'static str,
    pub(crate) path: String,
    pub(crate) body: Option<Vec<u8>>,
    pub(crate) content_type: String,
    pub(crate) key: Uuid,
    pub(crate) authorization: Option<String>,
    /// The device that a frontend names.
    pub(crate) caller: Option<String>,
}

/// An answer that has arrived whole.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) body: Value,
    pub(crate) bytes: Vec<u8>,
    pub(crate) headers: reqwest::header::HeaderMap,
}

impl Draft {
    pub(crate) fn post(path: &str, body: &Value) -> Self {
        Self {
            method: "POST",
            path: path.to_owned(),
            body: Some(serde_json::to_vec(body).unwrap()),
            content_type: "application/json".to_owned(),
            key: Uuid::now_v7(),
            authorization: None,
            caller: None,
        }
    }

    pub(crate) fn get(path: &str) -> Self {
        let content_type = String::new();
        let key = Uuid::nil();
        let path = path.to_owned();
        let (authorization, caller) = (None, None);
        Self { method: "GET", path, body: None, content_type, key, authorization, caller }
    }

    pub(crate) fn key(self, key: Uuid) -> Self {
        Self { key, ..self }
    }

    /// The same for a device that a frontend names, in a header that is signed.
    pub(crate) fn acting_for(&self, device: &str) -> Self {
        Self { caller: Some(device.to_owned()), ..self.clone() }
    }

    pub(crate) fn with_token(self, token: &str) -> Self {
        Self { authorization: Some(format!("Bearer {token}")), ..self }
    }

    /// The headers that sign this request for a server of this authority.
    pub(crate) fn headers(
        &self,
        device: &Device,
        authority: &str,
        now: Timestamp,
    ) -> Vec<(&'static str, String)> {
        let sign = |base: &[u8]| Ok::<_, ()>(device.key.sign(base).to_bytes().to_vec());
        self.signed_headers(authority, |parts| parts.sign(&device.keyid(), now, 60, sign).unwrap())
    }

    /// The headers of this request, signed with any parameters.
    pub(crate) fn signed_headers(
        &self,
        authority: &str,
        sign: impl FnOnce(&SignedParts<'_>) -> SignatureHeaders,
    ) -> Vec<(&'static str, String)> {
        let digest = self.body.as_ref().map(|body| content_digest(body));
        let key = self.key.to_string();
        let (path, query) = self.path.split_once('?').unwrap_or((&self.path, ""));
        let query = format!("?{query}");
        let parts = SignedParts {
            method: self.method,
            authority,
            path,
            query: &query,
            body: digest.as_deref().map(|content_digest| BodyParts {
                content_type: &self.content_type,
                content_digest,
                idempotency_key: &key,
            }),
            authorization: self.authorization.as_deref(),
            caller: self.caller.as_deref(),
        };
        let signed = sign(&parts);
        let mut headers =
            vec![("signature-input", signed.signature_input), ("signature", signed.signature)];
        if let Some(digest) = digest {
            headers.push(("content-type", self.content_type.clone()));
            headers.push(("content-digest", digest));
            headers.push(("idempotency-key", key));
        }
        headers.extend(self.authorization.clone().map(|value| ("authorization", value)));
        headers.extend(self.caller.clone().map(|value| ("keypool-caller", value)));
        headers
    }
}

impl Api {
    pub(crate) fn new(url: String, clock: Arc<dyn Clock>) -> Self {
        // The server ends a connection that was idle for 15 seconds, which a test that computes meanwhile does not hear.
        let http = reqwest::Client::builder().pool_idle_timeout(Duration::from_secs(10));
        Self { http: http.build().unwrap(), url, clock }
    }

    pub(crate) fn authority(&self) -> &str {
        self.url.split_once("://").unwrap().1
    }

    /// The request as reqwest sends it, signed.
    pub(crate) fn signed(&self, device: &Device, draft: &Draft) -> reqwest::RequestBuilder {
        let headers = draft.headers(device, self.authority(), self.clock.now());
        self.with_headers(draft, &headers)
    }

    pub(crate) fn with_headers(
        &self,
        draft: &Draft,
        headers: &[(&'static str, String)],
    ) -> reqwest::RequestBuilder {
        let method = draft.method.parse().unwrap();
        let mut request = self.http.request(method, format!("{}{}", self.url, draft.path));
        for (name, value) in headers {
            request = request.header(*name, value);
        }
        match &draft.body {
            Some(body) => request.body(body.clone()),
            None => request,
        }
    }

    pub(crate) async fn try_send(
        &self,
        device: &Device,
        draft: &Draft,
    ) -> Result<Answer, reqwest::Error> {
        answer(self.signed(device, draft)).await
    }

    pub(crate) async fn send(&self, device: &Device, draft: &Draft) -> Answer {
        self.try_send(device, draft).await.unwrap()
    }

    pub(crate) async fn post(&self, device: &Device, path: &str, body: Value) -> Answer {
        self.send(device, &Draft::post(path, &body)).await
    }

    pub(crate) async fn get(&self, device: &Device, path: &str) -> Answer {
        self.send(device, &Draft::get(path)).await
    }

    /// The devices of a device's user, as the server lists them for that device.
    pub(crate) async fn devices_of(&self, device: &Device) -> DevicesReply {
        let path = format!("/users/{}/devices", device.pool.user());
        serde_json::from_value(self.get(device, &path).await.ok().body).unwrap()
    }

    /// Removes a device by a device of its user.
    pub(crate) async fn remove(&self, by: &Device, device: &str) -> Answer {
        self.post(by, "/devices/remove", json!({ "device": device })).await
    }

    pub(crate) async fn register(&self, device: &Device) -> Answer {
        let (user, name) = (device.pool.user(), device.pool.device());
        self.post(device, "/devices", json!({ "user": user, "device": name })).await
    }

    /// Registers a device with a voucher, which may have been made before.
    pub(crate) async fn register_with(&self, device: &Device, voucher: &Value) -> Answer {
        let (user, name) = (device.pool.user(), device.pool.device());
        let body = json!({ "user": user, "device": name, "voucher": voucher });
        self.post(device, "/devices", body).await
    }

    pub(crate) async fn upload(&self, device: &Device, packages: &[Vec<u8>]) -> Answer {
        self.post(device, "/keypackages/upload", upload(packages)).await
    }

    pub(crate) async fn reserve(&self, device: &Device, user: &str) -> Answer {
        self.reserve_as(device, user, Uuid::new_v4()).await
    }

    pub(crate) async fn reserve_as(&self, device: &Device, user: &str, id: Uuid) -> Answer {
        let body = json!({ "target_user": user, "group_id": GROUP, "reservation_id": id });
        self.post(device, "/keypackages/reserve", body).await
    }

    /// Asks about, or acts on, a reservation that was answered.
    pub(crate) async fn claim(&self, device: &Device, path: &str, reserved: &Answer) -> Answer {
        self.post(device, path, claim(path, reserved)).await
    }
}

/// The body that acts on a reservation that was answered.
pub(crate) fn claim(path: &str, reserved: &Answer) -> Value {
    let mut body = json!({
        "keypackage_ref": reserved.body["keypackage_ref"],
        "reservation_id": reserved.body["reservation_id"],
    });
    if path.ends_with("/spend") {
        body["group_id"] = GROUP.into();
    }
    body
}

pub(crate) async fn answer(request: reqwest::RequestBuilder) -> Result<Answer, reqwest::Error> {
    let response = request.send().await?;
    let (status, headers) = (response.status().as_u16(), response.headers().clone());
    let bytes = response.bytes().await?.to_vec();
    let body = serde_json::from_slice(&bytes).unwrap_or_default();
    Ok(Answer { status, body, bytes, headers })
}

impl Answer {
    #[track_caller]
    pub(crate) fn ok(self) -> Self {
        assert!(self.status < 300, "{} {}", self.status, self.body);
        self
    }

    pub(crate) fn code(&self) -> &str {
        self.body["code"].as_str().unwrap_or_default()
    }

    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    pub(crate) fn text(&self, name: &str) -> &str {
        self.body[name].as_str().unwrap_or_default()
    }
}

/// A server in the test's own process, on a clock that the test moves.
pub(crate) struct Running {
    pub(crate) server: Server,
    pub(crate) clock: Arc<ManualClock>,
    pub(crate) api: Api,
    pub(crate) data: TempDir,
}

impl Running {
    pub(crate) fn start() -> Self {
        Self::start_with(|_| {})
    }

    pub(crate) fn start_with(change: impl FnOnce(&mut Settings)) -> Self {
        Self::start_at(NOW, change)
    }

    /// The same with a clock that begins at another moment.
    pub(crate) fn start_at(now: Timestamp, change: impl FnOnce(&mut Settings)) -> Self {
        let data = tempfile::tempdir().unwrap();
        let clock = Arc::new(ManualClock::at(now));
        let mut settings = local_settings(data.path());
        change(&mut settings);
        let server = Server::start(settings, clock.clone()).unwrap();
        let api = Api::new(server.url(), clock.clone());
        Self { server, clock, api, data }
    }

    /// Registers devices, and fills the pool of the last one.
    pub(crate) async fn with(self, devices: &[&Device], packages: usize) -> Self {
        for device in devices {
            self.api.register(device).await.ok();
        }
        if packages > 0 {
            let owner = devices.last().unwrap();
            self.api.upload(owner, &owner.packages(NOW, packages)).await.ok();
        }
        self
    }

    pub(crate) fn admin_url(&self) -> String {
        format!("http://{}", self.server.admin_address())
    }
}

pub(crate) fn local_settings(data: &Path) -> Settings {
    let free = "127.0.0.1:0".parse().unwrap();
    let (data, checkpoint_interval) = (data.join("log"), Duration::from_millis(1));
    // However full the disk of whoever tests is.
    let (workers, disk_low_water) = (Some(2), LowWater::Bytes(0));
    let usual = Settings::default();
    let usual = usual.without_quotas();
    let hide_names = hides_names();
    Settings {
        hide_names,
        listen: free,
        admin_listen: free,
        data,
        checkpoint_interval,
        workers,
        disk_low_water,
        ..usual
    }
}

/// The real binary, beside the test.
pub(crate) struct Process {
    child: Child,
    pub(crate) api: Api,
    pub(crate) greeting: Vec<String>,
}

impl Process {
    /// Starts the binary on a directory and waits until it says that it listens.
    pub(crate) fn start(data: &Path) -> Self {
        Self::spawn(command(data).stderr(Stdio::null()))
    }

    /// Starts the binary where no file may grow beyond so many blocks of 512 bytes.
    pub(crate) fn start_limited(data: &Path, blocks: u32) -> Self {
        let command = command(data);
        let script = format!("trap '' XFSZ; ulimit -f {blocks}; exec \"$0\" \"$@\"");
        let mut shell = Command::new("/bin/sh");
        shell.env_clear().arg("-c").arg(script).arg(command.get_program()).args(command.get_args());
        Self::spawn(shell.stderr(Stdio::piped()))
    }

    pub(crate) fn spawn(command: &mut Command) -> Self {
        Self::try_spawn(command).unwrap()
    }

    /// The same, or how it ended if it does not start.
    pub(crate) fn try_spawn(command: &mut Command) -> Result<Self, ExitStatus> {
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let greeting: Vec<String> = lines.by_ref().take(7).map(Result::unwrap).collect();
        let Some(first) = greeting.first() else { return Err(child.wait().unwrap()) };
        let url = first.strip_prefix("listening on ").unwrap().to_owned();
        Ok(Self { child, api: Api::new(url, Arc::new(SystemClock)), greeting })
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Ends it at once, as a power cut or the kernel would.
    pub(crate) fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Waits until it has ended by itself, and returns its standard error.
    pub(crate) fn ended(mut self) -> (ExitStatus, String) {
        let mut said = String::new();
        self.child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
        (self.child.wait().unwrap(), said)
    }

    /// Asks it to read its files again, and waits until it has said something of it.
    pub(crate) fn reload(&mut self, words: &str) -> String {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args(["-HUP", &pid]).status().unwrap().success());
        self.said(words)
    }

    /// The next line on standard error with some words in it.
    pub(crate) fn said(&mut self, words: &str) -> String {
        let said = BufReader::new(self.child.stderr.as_mut().unwrap());
        for line in said.lines().map(Result::unwrap) {
            if line.contains(words) {
                return line;
            }
        }
        panic!("the server has ended");
    }

    /// Asks it to end, and waits until it has.
    pub(crate) fn terminate(mut self) -> ExitStatus {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
        self.child.wait().unwrap()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub(crate) fn command(data: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_keypool-server"));
    command.env_clear().args(["--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"]);
    command.args(["--disk-low-water", "0"]).arg("--data").arg(data);
    if hides_names() {
        command.env("KEYPOOL_HIDE_NAMES", "true");
    }
    command
}

/// Whether the logs of these tests hide names: `just test-hidden` asks for it.
fn hides_names() -> bool {
    std::env::var_os("KEYPOOL_TEST_HIDE_NAMES").is_some()
}

/// How large a test is: small, or as large as a variable of the environment says.
pub(crate) fn size(name: &str, otherwise: usize) -> usize {
    std::env::var(name).map_or(otherwise, |size| size.parse().unwrap())
}

/// The message of a binary that does not start, and its exit code. One that does start is ended.
pub(crate) fn refusal(command: &mut Command) -> (String, i32) {
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut greeting = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut greeting).unwrap();
    if !greeting.is_empty() {
        child.kill().unwrap();
        child.wait().unwrap();
        panic!("the server has started: {greeting}");
    }
    let mut said = String::new();
    child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
    let code = child.wait().unwrap().code().unwrap();
    let ours: Vec<&str> = said.lines().filter(|line| line.starts_with("keypool-server:")).collect();
    (if ours.is_empty() { said } else { ours.join("\n") }, code)
}

/// The files of a directory, of any depth.
pub(crate) fn files(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { found.extend(files(&path)) } else { found.push(path) }
    }
    found.sort();
    found
}
