//! Check 10: the credential in the leaf names the device, or is the one that it has declared.

use keypool_ledger::CredentialBytes;

use super::*;

#[test]
fn check_10_identity() {
    let long = vec![b'a'; 10_000];
    let identities: [&[u8]; 6] =
        [b"", b"bob", b"alice/laptop", b"alice/phone/x", b"\xffalice", &long];
    for identity in identities {
        let detail = "the credential's identity is neither alice nor alice/phone; declare another \
                      credential with POST /devices/credential before the upload";
        check_spoiled(Check::Identity, detail, |content| {
            content.leaf.content.credential.content = identity.to_vec().into();
        });
    }
    check_spoiled(
        Check::Identity,
        "credential type 2 is not Basic (1); declare another credential with POST /devices/credential before \
                  the upload",
        |content| {
            content.leaf.content.credential.credential_type = 2;
            capabilities(content).credentials.push(2);
        },
    );
}

#[test]
fn check_10_identity_of_a_declared_credential() {
    let marmot = [0xfe; 32];
    let maker = Maker::new(1);
    let declared = [&[0, 1, 32][..], &marmot].concat();
    let owner = Owner { credential: Some(Hash::of(&declared)), ..maker.owner() };
    let carries = |identity: &[u8]| {
        maker.spoiled(|content| content.leaf.content.credential.content = identity.to_vec().into())
    };
    let facts = admit(&carries(&marmot), &owner, NOW, &rules()).unwrap().facts;
    assert_eq!(facts.credential, Hash::of(&declared));
    // The one that names the device is no more than any other then.
    for other in [&b"alice"[..], b"alice/phone", &marmot[..31]] {
        let refused = admit(&carries(other), &owner, NOW, &rules()).unwrap_err();
        assert_eq!(refused.check, Check::Identity);
        assert_eq!(
            refused.detail,
            "the leaf's credential is not the one that the device has declared with \
             POST /devices/credential"
        );
    }
}

#[test]
fn a_credential_that_is_declared_is_encoded_in_the_one_way_there_is() {
    let is_one = |bytes: &[u8]| is_credential(&CredentialBytes::new(bytes).unwrap());
    assert!(is_one(&[0, 1, 0]));
    assert!(is_one(&[0xf0, 1, 2, 7, 7]));
    // More or less than one, and a length that is longer than it must be.
    for other in [&[0, 1, 0, 0][..], &[0, 1, 2, 7], &[0, 1, 0x40, 1, 7]] {
        assert!(!is_one(other), "{other:?}");
    }
}
