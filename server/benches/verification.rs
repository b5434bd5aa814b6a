//! The cost of verifying the signature of a request, by two libraries. `just bench-rules`.
//!
//! The server verifies with ed25519-dalek, strictly: it refuses keys and signatures of small order, which
//! aws-lc-rs takes.

use std::{error::Error, hint::black_box};

use aws_lc_rs::signature::{ED25519, UnparsedPublicKey};
use criterion::Criterion;
use ed25519_dalek::{Signature, Signer, SigningKey, VerifyingKey};

/// A signature base is about as long: that of the known answer in docs/api.md has so many bytes.
const BASE_BYTES: usize = 462;

/// Whether a key has signed some bytes.
type Verify = fn(&[u8; 32], &[u8], &[u8; 64]) -> bool;

fn strictly(key: &[u8; 32], base: &[u8], signature: &[u8; 64]) -> bool {
    let key = VerifyingKey::from_bytes(key);
    key.is_ok_and(|key| key.verify_strict(base, &Signature::from_bytes(signature)).is_ok())
}

fn by_aws_lc(key: &[u8; 32], base: &[u8], signature: &[u8; 64]) -> bool {
    UnparsedPublicKey::new(&ED25519, key).verify(base, signature).is_ok()
}

fn main() -> Result<(), Box<dyn Error>> {
    let key = SigningKey::from_bytes(&[7; 32]);
    let base = [b'x'; BASE_BYTES];
    let (public, signature) = (key.verifying_key().to_bytes(), key.sign(&base).to_bytes());
    let mut criterion = Criterion::default().configure_from_args();
    let ways: [(&str, Verify); 2] =
        [("ed25519-dalek, strictly", strictly), ("aws-lc-rs", by_aws_lc)];
    for (name, verify) in ways {
        if !verify(&public, &base, &signature) {
            return Err(format!("{name} refuses a good signature").into());
        }
        criterion.bench_function(&format!("verification/{name}"), |bench| {
            bench.iter(|| verify(black_box(&public), black_box(&base), black_box(&signature)));
        });
    }
    criterion.final_summary();
    Ok(())
}
