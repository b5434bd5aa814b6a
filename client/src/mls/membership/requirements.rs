//! The capabilities that a group requires of its members.

use std::collections::BTreeSet;

use keypool_ledger::GroupId;
use keypool_projections::{RequiredCapabilities, Requirement};
use openmls::{
    credentials::CredentialType,
    extensions::{Extension, RequiredCapabilitiesExtension},
    group::MlsGroup,
};

use super::{MlsMembership, open};
use crate::GroupError;

impl MlsMembership {
    /// The capabilities that a package must have so that its device can be in a group: those of the group's
    /// `required_capabilities`, the types of the extensions in its context, and the credential types of its members
    /// (RFC 9420, sections 7.3 and 11.1). `None` if they are default types and Basic credentials alone.
    ///
    /// # Errors
    ///
    /// Returns a [`GroupError`] if the device is not in the group or the store cannot be read.
    pub fn required_capabilities(
        &self,
        group: &GroupId,
    ) -> Result<Option<RequiredCapabilities>, GroupError> {
        let staged = self.store.stage()?;
        Ok(required_of(&open(&staged, group)?))
    }
}

fn required_of(state: &MlsGroup) -> Option<RequiredCapabilities> {
    let context = state.extensions();
    let required = context.required_capabilities();
    let in_context = context.iter().map(Extension::extension_type);
    let extensions = required.map(RequiredCapabilitiesExtension::extension_types);
    let proposals = required.map(RequiredCapabilitiesExtension::proposal_types);
    let carried = state.members().map(|member| member.credential.credential_type());
    let credentials = required.map(RequiredCapabilitiesExtension::credential_types);
    let named = |credentials: &[CredentialType]| credentials.to_vec();
    let required = RequiredCapabilities {
        extensions: numbers(
            in_context.chain(extensions.unwrap_or_default().iter().copied()),
            Requirement::Extension,
        ),
        proposals: numbers(proposals.unwrap_or_default().iter().copied(), Requirement::Proposal),
        credentials: numbers(
            carried
                .chain(credentials.map(named).unwrap_or_default())
                .filter(|kind| *kind != CredentialType::Basic),
            Requirement::Credential,
        ),
    };
    // A server takes no more numbers than that: it hands out any package then, which is checked here.
    (1..=RequiredCapabilities::NUMBERS_MAX).contains(&required.len()).then_some(required)
}

/// The numbers of some types, each once, without those that every implementation has.
fn numbers<T: Into<u16>>(
    types: impl Iterator<Item = T>,
    kind: impl Fn(u16) -> Requirement,
) -> Vec<u16> {
    let numbers: BTreeSet<u16> = types.map(Into::into).collect();
    numbers.into_iter().filter(|number| !kind(*number).is_default()).collect()
}

#[cfg(test)]
mod tests {
    use openmls::{
        extensions::{ExtensionType, Extensions, UnknownExtension},
        prelude::{BasicCredential, Capabilities, CredentialWithKey, MlsGroupCreateConfig},
    };
    use openmls_basic_credential::SignatureKeyPair;
    use openmls_rust_crypto::OpenMlsRustCrypto;
    use openmls_traits::types::Ciphersuite;

    use super::*;

    const SUITE: Ciphersuite = Ciphersuite::MLS_128_DHKEMX25519_CHACHA20POLY1305_SHA256_Ed25519;

    fn made(context: Vec<Extension>, credential: CredentialType) -> MlsGroup {
        let keys = SignatureKeyPair::new(SUITE.signature_algorithm()).unwrap();
        let capabilities = Capabilities::builder()
            .extensions(vec![ExtensionType::Unknown(0xff01), ExtensionType::Unknown(0xff02)])
            .proposals(vec![0xff03.into()])
            .credentials(vec![CredentialType::Basic, CredentialType::X509])
            .build();
        let config = MlsGroupCreateConfig::builder()
            .ciphersuite(SUITE)
            .capabilities(capabilities)
            .with_group_context_extensions(Extensions::from_vec(context).unwrap())
            .build();
        let mut carried: openmls::credentials::Credential =
            BasicCredential::new(b"alice".to_vec()).into();
        if credential != CredentialType::Basic {
            carried = openmls::credentials::Credential::new(credential, vec![0]);
        }
        let credential =
            CredentialWithKey { credential: carried, signature_key: keys.public().into() };
        MlsGroup::new(&OpenMlsRustCrypto::default(), &keys, &config, credential).unwrap()
    }

    #[test]
    fn a_plain_group_requires_nothing_in_particular() {
        assert_eq!(required_of(&made(Vec::new(), CredentialType::Basic)), None);
        let defaults = RequiredCapabilitiesExtension::new(
            &[ExtensionType::ExternalSenders],
            &[],
            &[CredentialType::Basic],
        );
        let defaults = vec![Extension::RequiredCapabilities(defaults)];
        assert_eq!(required_of(&made(defaults, CredentialType::Basic)), None);
    }

    #[test]
    fn a_group_requires_what_its_context_names_and_has_and_what_its_members_carry() {
        let named = RequiredCapabilitiesExtension::new(
            &[ExtensionType::Unknown(0xff01), ExtensionType::ExternalSenders],
            &[0xff03.into()],
            &[CredentialType::Basic],
        );
        let context = vec![
            Extension::RequiredCapabilities(named),
            Extension::Unknown(0xff02, UnknownExtension(vec![1])),
        ];
        let required = required_of(&made(context, CredentialType::X509)).unwrap();
        assert_eq!(
            required,
            RequiredCapabilities {
                extensions: vec![0xff01, 0xff02],
                proposals: vec![0xff03],
                credentials: vec![2],
            }
        );
    }
}
