//! The bounds of open connections.

/// A bound that a connection is beyond.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Bound {
    /// Bound of the whole process.
    Process,
    /// Bound of an address.
    Address,
}

impl Bound {
    /// All of them.
    pub(crate) const ALL: [Self; 2] = [Self::Process, Self::Address];

    /// The word, as the metrics use it.
    pub(crate) const fn word(self) -> &'static str {
        match self {
            Self::Process => "process",
            Self::Address => "address",
        }
    }
}
