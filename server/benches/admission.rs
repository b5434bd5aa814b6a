//! The cost of admitting one package: decoded, judged, its signatures verified. `just bench-rules`.

use std::{error::Error, hint::black_box};

use criterion::Criterion;
use keypool_ledger::{Clock, PoolId, SignatureKey, SystemClock};
use keypool_server::{AdmissionRules, Owner, admit};
use openmls::{
    credentials::{BasicCredential, CredentialWithKey},
    key_packages::{KeyPackage, Lifetime},
    prelude::Capabilities,
};
use openmls_basic_credential::SignatureKeyPair;
use openmls_rust_crypto::OpenMlsRustCrypto;
use openmls_traits::{OpenMlsProvider, types::Ciphersuite};
use tls_codec::Serialize;

/// How long the package may be used: as long as the client's.
const LIFETIME_S: u64 = 14 * 24 * 60 * 60;
const SUITE: Ciphersuite = Ciphersuite::MLS_128_DHKEMX25519_AES128GCM_SHA256_Ed25519;

/// A package of a device, and whose it is.
fn package() -> Result<(Vec<u8>, Owner), Box<dyn Error>> {
    let provider = OpenMlsRustCrypto::default();
    let keys = SignatureKeyPair::new(SUITE.signature_algorithm())?;
    let credential = CredentialWithKey {
        credential: BasicCredential::new(b"alice/phone".to_vec()).into(),
        signature_key: keys.public().into(),
    };
    let made = KeyPackage::builder()
        .key_package_lifetime(Lifetime::new(LIFETIME_S))
        .leaf_node_capabilities(Capabilities::for_provider(provider.crypto()))
        .build(SUITE, &provider, &keys, credential)?;
    let signature_key = Some(SignatureKey::new(keys.public())?);
    let owner = Owner::new(PoolId::new("alice", "phone")?, signature_key);
    Ok((made.key_package().tls_serialize_detached()?, owner))
}

fn main() -> Result<(), Box<dyn Error>> {
    let mut criterion = Criterion::default().configure_from_args();
    let ((bytes, owner), rules) = (package()?, AdmissionRules::default());
    let now = SystemClock.now();
    admit(&bytes, &owner, now, &rules)?;
    criterion.bench_function(&format!("admission/a package of {} bytes", bytes.len()), |bench| {
        bench.iter(|| admit(black_box(&bytes), &owner, now, &rules));
    });
    criterion.final_summary();
    Ok(())
}
