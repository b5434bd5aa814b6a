//! Real packages, for uploads: the server validates them, so they cannot be made up.

use std::collections::HashMap;

use keypool_ledger::{Clock, SystemClock};
use openmls::prelude::{
    BasicCredential, Capabilities, Ciphersuite, CredentialWithKey, KeyPackage, Lifetime,
};
use openmls_basic_credential::SignatureKeyPair;
use openmls_rust_crypto::OpenMlsRustCrypto;
use openmls_traits::types::SignatureScheme;
use tls_codec::Serialize;

use crate::{Outcome, population::Device};

const SUITE: Ciphersuite = Ciphersuite::MLS_128_DHKEMX25519_AES128GCM_SHA256_Ed25519;
const LIFETIME_S: u64 = 14 * 24 * 3600;

/// Packages of devices, by the device's number. Each is made once and used in every round.
#[derive(Default)]
pub(crate) struct Packages {
    made: HashMap<u64, Vec<Vec<u8>>>,
}

impl Packages {
    /// So many packages of a device, after the first `skip` ones.
    pub(crate) fn of(&mut self, number: u64, skip: usize, count: usize) -> Outcome<&[Vec<u8>]> {
        let made = self.made.entry(number).or_default();
        let device = Device::new(number)?;
        while made.len() < skip + count {
            made.push(make(&device)?);
        }
        Ok(made.get(skip..skip + count).unwrap_or_default())
    }
}

/// A package of ciphersuite 1 that is valid for 14 days.
pub(crate) fn make(device: &Device) -> Outcome<Vec<u8>> {
    let now = SystemClock.now().as_secs();
    let capabilities = Capabilities::new(None, Some(&[SUITE]), None, None, None);
    let (private, public) = (device.key.to_bytes().to_vec(), device.keyid()?.as_bytes().to_vec());
    let signer = SignatureKeyPair::from_raw(SignatureScheme::ED25519, private, public);
    let credential = CredentialWithKey {
        credential: BasicCredential::new(device.pool.user().as_bytes().to_vec()).into(),
        signature_key: signer.public().into(),
    };
    let bundle = KeyPackage::builder()
        .key_package_lifetime(Lifetime::init(now - 3600, now + LIFETIME_S))
        .leaf_node_capabilities(capabilities)
        .build(SUITE, &OpenMlsRustCrypto::default(), &signer, credential)?;
    Ok(bundle.key_package().tls_serialize_detached()?)
}
