//! The capabilities that a group requires of its members, and whether a package has them.

use std::fmt;

use keypool_ledger::{PackageCapabilities, PackageFacts};
use serde::{Deserialize, Deserializer, Serialize};

/// The last of the extension types that every implementation supports (RFC 9420 section 7.2).
const EXTENSION_DEFAULT_MAX: u16 = 5;
/// The last of the proposal types that every implementation supports (RFC 9420 section 7.2).
const PROPOSAL_DEFAULT_MAX: u16 = 7;

/// The capabilities that a package must have so that its device can be in a group: those of the group's
/// `required_capabilities` (RFC 9420 section 11.1), and the credential types of its members.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct RequiredCapabilities {
    /// The types of extensions; none if it is left out.
    #[serde(default, deserialize_with = "null_as_empty", skip_serializing_if = "Vec::is_empty")]
    pub extensions: Vec<u16>,
    /// The types of proposals; none if it is left out.
    #[serde(default, deserialize_with = "null_as_empty", skip_serializing_if = "Vec::is_empty")]
    pub proposals: Vec<u16>,
    /// The types of credentials; none if it is left out.
    #[serde(default, deserialize_with = "null_as_empty", skip_serializing_if = "Vec::is_empty")]
    pub credentials: Vec<u16>,
}

/// One capability that a group requires, by its number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum Requirement {
    /// A type of extensions.
    Extension(u16),
    /// A type of proposals.
    Proposal(u16),
    /// A type of credentials.
    Credential(u16),
}

impl RequiredCapabilities {
    /// How many numbers a request may name in all.
    pub const NUMBERS_MAX: usize = 64;

    /// Counts the numbers.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.extensions.len() + self.proposals.len() + self.credentials.len()
    }

    /// Whether nothing is required.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The requirements, one by one.
    pub fn iter(&self) -> impl Iterator<Item = Requirement> {
        let extensions = self.extensions.iter().copied().map(Requirement::Extension);
        let proposals = self.proposals.iter().copied().map(Requirement::Proposal);
        let credentials = self.credentials.iter().copied().map(Requirement::Credential);
        extensions.chain(proposals).chain(credentials)
    }

    /// Whether a package meets all of them.
    #[must_use]
    pub fn are_met_by(&self, facts: &PackageFacts) -> bool {
        self.iter().all(|requirement| requirement.is_met_by(facts))
    }

    /// The first requirement that none of some packages meets or, where each is met by one of them, the first that
    /// the first package does not meet. `None` if there is no package, or the first meets all.
    #[must_use]
    pub fn unmet_by(&self, packages: &[&PackageFacts]) -> Option<Requirement> {
        let first = packages.first()?;
        let by_none =
            |requirement: &Requirement| !packages.iter().any(|facts| requirement.is_met_by(facts));
        let by_first = |requirement: &Requirement| !requirement.is_met_by(first);
        self.iter().find(by_none).or_else(|| self.iter().find(by_first))
    }
}

impl Requirement {
    /// Whether every implementation supports it, so that no package lists it (RFC 9420 section 7.2).
    #[must_use]
    pub const fn is_default(self) -> bool {
        matches!(
            self,
            Self::Extension(1..=EXTENSION_DEFAULT_MAX) | Self::Proposal(1..=PROPOSAL_DEFAULT_MAX)
        )
    }

    /// Whether a package meets it. One that was uploaded before capabilities were recorded has those alone that
    /// every implementation has.
    #[must_use]
    pub fn is_met_by(self, facts: &PackageFacts) -> bool {
        let lists = |of: fn(&PackageCapabilities) -> &Vec<u16>, number| {
            facts.capabilities.as_deref().is_some_and(|known| of(known).contains(&number))
        };
        match self {
            _ if self.is_default() => true,
            Self::Extension(number) => lists(|known| &known.extensions, number),
            Self::Proposal(number) => lists(|known| &known.proposals, number),
            Self::Credential(number) => lists(|known| &known.credentials, number),
        }
    }
}

impl fmt::Display for Requirement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Extension(number) => write!(f, "extension {number:#06x}"),
            Self::Proposal(number) => write!(f, "proposal {number:#06x}"),
            Self::Credential(number) => write!(f, "credential type {number:#06x}"),
        }
    }
}

/// Reads a list that may be `null`: it counts as left out then.
fn null_as_empty<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<u16>, D::Error> {
    Ok(Option::deserialize(from)?.unwrap_or_default())
}
