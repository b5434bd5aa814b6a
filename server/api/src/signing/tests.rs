//! The profile against another implementation, and the signatures it refuses.

use super::*;

const INPUT: &str = "kp=(\"@method\" \"@authority\" \"@path\" \"content-type\" \"content-digest\" \"idempotency-key\");created=1766400000;keyid=\"A6EHv_POEL4dcN0Y50vAmWfk1jCbpQ1fHdyGZBJVMbg\";alg=\"ed25519\";expires=1766400060;tag=\"keypool-v1\"";
const SIGNATURE: &str =
    "kp=:ulJWxNwpZLo4rGM8EJGZ8LjqWid4k6GY+VSGPMwKX3eXf2BRvmViKRWSe5G2EUDO3dGSfzCOzkqVtv9ArdKICg==:";
const BODY: &[u8] = br#"{"target_user":"bob","group_id":"Z3JvdXAtMQ=="}"#;

fn known_parts(digest: &str) -> SignedParts<'_> {
    SignedParts {
        method: "POST",
        authority: "keypool.example",
        path: "/keypackages/reserve",
        query: "?",
        body: Some(BodyParts {
            content_type: "application/json",
            content_digest: digest,
            idempotency_key: "018f2f3e-7c1a-7d3b-9a5e-0123456789ab",
        }),
        authorization: None,
        caller: None,
    }
}

#[test]
fn the_base_is_the_one_another_implementation_signed() {
    let digest = content_digest(BODY);
    assert_eq!(digest, "sha-256=:QdSe66gutd5VwrsoooNmZU6HdVauWNi5JJ+TnReV1Y8=:");

    let received = ReceivedSignature::parse(INPUT, SIGNATURE).unwrap();
    let base = known_parts(&digest).base(&received.params);

    assert_eq!(base.len(), 462);
    let sha = data_encoding::HEXLOWER.encode(&Sha256::digest(base.as_bytes()));
    assert_eq!(sha, "21ec63b13e56628ee3e55759dd9538520e7f62598af061a18d824bdfb23c2930");
}

#[test]
fn what_is_signed_here_is_read_here() {
    let digest = content_digest(BODY);
    let parts = known_parts(&digest);
    let received = ReceivedSignature::parse(INPUT, SIGNATURE).unwrap();
    let signed = parts.sign(&received.keyid, received.created, 60, |_| {
        Ok::<_, std::convert::Infallible>(received.signature.clone())
    });

    let signed = signed.unwrap();

    assert_eq!(signed.signature_input, INPUT);
    assert_eq!(signed.signature, SIGNATURE);
    parts.check(&received, received.created).unwrap();
}

#[test]
fn another_algorithm_and_another_form_of_keyid_are_refused() {
    let session = "session:BwcHBwcHBwcHBwcHBwcHBw";
    let keyid = "A6EHv_POEL4dcN0Y50vAmWfk1jCbpQ1fHdyGZBJVMbg";
    for input in [INPUT.replace("ed25519", "hmac-sha256"), INPUT.replace(keyid, session)] {
        let refused = ReceivedSignature::parse(&input, SIGNATURE).unwrap_err();
        assert!(matches!(refused, SignatureError::Malformed(_)), "{refused}");
    }
}

#[test]
fn a_signature_of_another_form_is_refused() {
    let refused = |input: &str| ReceivedSignature::parse(input, SIGNATURE).unwrap_err();
    let twice = format!("{INPUT};created=1766400000");
    let two = format!("{INPUT}, kp2={}", INPUT.trim_start_matches("kp="));
    let cases = [
        ("", SignatureError::Missing),
        ("kp=(\"@method\");tag=\"other\"", SignatureError::Missing),
        (
            &twice,
            SignatureError::Malformed("its headers are not in canonical form, or repeat a name"),
        ),
        (&two, SignatureError::Malformed("more than one signature has its tag")),
        (
            "not structured \u{1}",
            SignatureError::Malformed("its headers are no structured fields (RFC 9651)"),
        ),
    ];
    for (input, error) in cases {
        assert_eq!(refused(input), error, "{input}");
    }
}

#[test]
fn a_signature_holds_for_its_time_and_its_components_only() {
    let digest = content_digest(BODY);
    let parts = known_parts(&digest);
    let received = ReceivedSignature::parse(INPUT, SIGNATURE).unwrap();
    let at = |secs: u64| parts.check(&received, Timestamp::from_secs(secs));
    assert!(matches!(at(1_766_399_969), Err(SignatureError::Clock(_))));
    assert_eq!(at(1_766_399_970), Ok(()));
    assert_eq!(at(1_766_400_090), Ok(()));
    assert!(matches!(at(1_766_400_091), Err(SignatureError::Clock(_))));

    let long =
        ReceivedSignature { expires: Timestamp::from_secs(1_766_400_121), ..received.clone() };
    let checked = parts.check(&long, received.created);
    assert!(matches!(checked, Err(SignatureError::Clock(_))), "{checked:?}");

    let without_body = SignedParts { body: None, ..parts };
    let checked = without_body.check(&received, received.created);
    assert!(matches!(checked, Err(SignatureError::Components(_))), "{checked:?}");
}

#[test]
fn the_caller_of_a_frontend_is_the_last_component_and_is_covered_whenever_it_is_sent() {
    let digest = content_digest(BODY);
    let own = known_parts(&digest);
    let acting =
        SignedParts { authorization: Some("Bearer x"), caller: Some("bob/phone"), ..own.clone() };
    let components = acting.components();
    assert_eq!(components[components.len() - 2..], ["authorization", "keypool-caller"]);
    let base = acting.base("params");
    let lines = "\n\"authorization\": Bearer x\n\"keypool-caller\": bob/phone\n\"@signature-params\": params";
    assert!(base.ends_with(lines), "{base}");

    let received = ReceivedSignature::parse(INPUT, SIGNATURE).unwrap();
    let acting = SignedParts { authorization: None, ..acting };
    let uncovered = acting.check(&received, received.created);
    assert!(matches!(uncovered, Err(SignatureError::Components(_))), "{uncovered:?}");
    let signed = acting.sign(&received.keyid, received.created, 60, |_| Ok::<_, ()>(vec![0; 64]));
    let signed = signed.unwrap();
    let covering = ReceivedSignature::parse(&signed.signature_input, &signed.signature).unwrap();
    acting.check(&covering, received.created).unwrap();
    let without_header = own.check(&covering, received.created);
    assert!(matches!(without_header, Err(SignatureError::Components(_))), "{without_header:?}");
}

/// RFC 9420 section 5.1.2: MLS signs `SignContent`, which begins with the length of a label that
/// begins with `MLS 1.0 `. A signature base begins with `"@`: no bytes are both.
#[test]
fn no_signature_base_is_an_mls_sign_content() {
    let digest = content_digest(BODY);
    let base = known_parts(&digest).base("()");
    assert!(base.starts_with("\"@"));
    // 0x22 as a length would put 34 bytes of label behind it, beginning with "MLS 1.0 ".
    assert!(!base.get(1..).unwrap_or_default().starts_with("MLS 1.0 "));
}
