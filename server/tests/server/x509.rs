//! X.509 credentials on a server whose operator has given roots.

use std::{fs, path::Path};

use keypool_ledger::SignatureKey;
use openmls::prelude::{Credential, CredentialType};
use rcgen::{
    BasicConstraints, Certificate, CertificateParams, IsCa, Issuer, KeyPair, PKCS_ED25519,
    PublicKeyData, SignatureAlgorithm, date_time_ymd,
};

use crate::{
    harness::{Answer, Device, NOW, Running, command, refusal},
    identity::{bytes, declare_credential, fault},
};

/// The public key of a device, to be certified.
struct DeviceKey(SignatureKey);

impl PublicKeyData for DeviceKey {
    fn der_bytes(&self) -> &[u8] {
        self.0.as_bytes()
    }

    fn algorithm(&self) -> &'static SignatureAlgorithm {
        &PKCS_ED25519
    }
}

/// An authority with its certificate.
struct Authority {
    issuer: Issuer<'static, KeyPair>,
    certificate: Certificate,
}

impl Authority {
    fn params() -> CertificateParams {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params
    }

    fn root() -> Self {
        let key = KeyPair::generate_for(&PKCS_ED25519).unwrap();
        let certificate = Self::params().self_signed(&key).unwrap();
        Self { issuer: Issuer::new(Self::params(), key), certificate }
    }

    fn below(&self) -> Self {
        let key = KeyPair::generate_for(&PKCS_ED25519).unwrap();
        let certificate = Self::params().signed_by(&key, &self.issuer).unwrap();
        Self { issuer: Issuer::new(Self::params(), key), certificate }
    }

    /// The certificate of a device's key, good until the beginning of a year.
    fn certifies(&self, device: &Device, until: i32) -> Vec<u8> {
        let key = DeviceKey(device.keyid());
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.not_after = date_time_ymd(until, 1, 1);
        params.signed_by(&key, &self.issuer).unwrap().der().to_vec()
    }

    fn der(&self) -> Vec<u8> {
        self.certificate.der().to_vec()
    }
}

/// A credential of some certificates, each with its length before it.
fn credential(certificates: &[Vec<u8>]) -> Credential {
    let part = |certificate: &Vec<u8>| {
        let len = u16::try_from(certificate.len()).unwrap() | 0x4000;
        [&len.to_be_bytes()[..], certificate].concat()
    };
    let content: Vec<u8> = certificates.iter().flat_map(part).collect();
    Credential::new(CredentialType::X509, content)
}

/// Declares a credential, and uploads a package that carries it.
async fn uploads(running: &Running, owner: &Device, credential: Credential) -> Answer {
    declare_credential(&running.api, owner, &bytes(&credential)).await.ok();
    running.api.upload(owner, &[owner.package_carrying(NOW, credential)]).await
}

#[actix_web::test]
async fn a_chain_leads_to_a_root_of_the_operators_and_is_of_the_leafs_key() {
    let dir = tempfile::tempdir().unwrap();
    let (root, other) = (Authority::root(), Authority::root());
    let middle = root.below();
    let file = dir.path().join("roots.pem");
    fs::write(&file, [Authority::root().certificate.pem(), root.certificate.pem()].concat())
        .unwrap();
    let running = Running::start_with(|settings| settings.x509_roots = Some(file));
    let devices = ["a", "b", "c", "d", "e", "f", "g"].map(Device::new);
    let running = running.with(&devices.each_ref(), 0).await;
    let [through_both, direct, foreign, expired, of_another, none, basic] = &devices;

    let chain = credential(&[middle.certifies(through_both, 2100), middle.der()]);
    uploads(&running, through_both, chain).await.ok();
    let chain = credential(&[root.certifies(direct, 2100)]);
    uploads(&running, direct, chain).await.ok();

    let no_root = "the X.509 credential's chain leads to no root of this server";
    let cases = [
        (foreign, credential(&[other.certifies(foreign, 2100), other.der()]), no_root),
        (expired, credential(&[root.certifies(expired, 2020)]), no_root),
        (
            of_another,
            credential(&[root.certifies(direct, 2100)]),
            "the X.509 credential's certificate is of another key than the leaf's signature key",
        ),
        (
            none,
            Credential::new(CredentialType::X509, b"xyz".to_vec()),
            "the X.509 credential is no list of one to 8 certificates",
        ),
    ];
    for (owner, credential, expected) in cases {
        let (check, detail) = fault(&uploads(&running, owner, credential).await);
        assert_eq!(check, "identity");
        assert!(detail.starts_with(expected), "{detail}");
    }
    // Other credentials have no chain.
    running.api.upload(basic, &basic.packages(NOW, 1)).await.ok();
}

#[test]
fn a_file_without_roots_does_not_start() {
    let dir = tempfile::tempdir().unwrap();
    let said = |path: &Path| {
        let path = path.to_str().unwrap();
        let (said, code) = refusal(command(&dir.path().join("data")).args(["--x509-roots", path]));
        format!("{} ({code})", said.replace(dir.path().to_str().unwrap(), "DIR"))
    };
    let empty = dir.path().join("empty");
    fs::write(&empty, "hello\n").unwrap();
    let damaged = dir.path().join("damaged");
    fs::write(&damaged, "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n").unwrap();
    let cases = [said(&empty), said(&damaged), said(Path::new("/nowhere/roots"))];
    insta::assert_snapshot!(cases.join("\n"), @"
    keypool-server: DIR/empty: expected certificates in PEM, found none (2)
    keypool-server: DIR/damaged: certificate 1: TrailingData(SignedData) (2)
    keypool-server: /nowhere/roots cannot be read: No such file or directory (os error 2) (2)
    ");
}
