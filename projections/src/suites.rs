//! The ciphersuites of RFC 9420 and the hybrid ones of draft-ietf-mls-pq-ciphersuites, as far as a pool needs them.

/// The signature scheme of the keys that are registered for devices.
pub const ED25519: u16 = 0x0807;

/// The signature scheme of a ciphersuite, RFC 9420 section 17.1 and the draft; `None` for a suite of another document.
pub(crate) const fn signature_scheme(ciphersuite: u16) -> Option<u16> {
    match ciphersuite {
        1 | 3 | 0x004e | 0x004f => Some(ED25519),
        2 => Some(0x0403),
        4 | 6 => Some(0x0808),
        5 => Some(0x0603),
        7 => Some(0x0503),
        _ => None,
    }
}

/// Whether packages of a ciphersuite may be signed by that scheme. Of a suite that is not known here each
/// may be.
pub(crate) fn may_be_signed_by(ciphersuite: u16, scheme: u16) -> bool {
    signature_scheme(ciphersuite).is_none_or(|its| its == scheme)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_ciphersuite_has_the_signature_scheme_of_its_document() {
        let schemes = [
            (0, None),
            (1, Some(ED25519)),
            (2, Some(0x0403)),
            (3, Some(ED25519)),
            (4, Some(0x0808)),
            (5, Some(0x0603)),
            (6, Some(0x0808)),
            (7, Some(0x0503)),
            (8, None),
            (0x004d, None),
            (0x004e, Some(ED25519)),
            (0x004f, Some(ED25519)),
        ];
        for (ciphersuite, scheme) in schemes {
            assert_eq!(signature_scheme(ciphersuite), scheme, "{ciphersuite:#06x}");
            let may = |by| may_be_signed_by(ciphersuite, by);
            let expected = (scheme.is_none_or(|its| its == 0x0403), true);
            assert_eq!((may(0x0403), scheme.is_none_or(may)), expected, "{ciphersuite:#06x}");
        }
    }
}
