//! Whether overwriting a file in place reaches the bytes on the disk.

use std::{fmt, path::Path};

/// The fate of overwritten bytes, by the kind of file system.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Erasure {
    /// The file system writes over them. Layers beneath it, such as the translation layer of a flash
    /// disk, may still keep them.
    InPlace,
    /// The file system named here writes elsewhere, or on another machine: old bytes stay until their
    /// place is needed. A thief of the disk with the device key may find deleted private keys.
    Elsewhere(&'static str),
    /// Unknown.
    Unknown,
}

impl Erasure {
    /// Detects the file system which holds a file.
    pub(super) fn of(path: &Path) -> Self {
        kind_of(path).map_or(Self::Unknown, |kind| match kind {
            0x9123_683E => Self::Elsewhere("btrfs"),
            0x2FC1_2FC1 => Self::Elsewhere("zfs"),
            0xCA45_1A4E => Self::Elsewhere("bcachefs"),
            0xF2F5_2010 => Self::Elsewhere("f2fs"),
            0x3434 => Self::Elsewhere("nilfs"),
            0x794C_7630 => Self::Elsewhere("overlayfs"),
            0x6969 => Self::Elsewhere("nfs"),
            0xFF53_4D42 | 0xFE53_4D42 => Self::Elsewhere("smb"),
            0x0102_1997 => Self::Elsewhere("9p"),
            0x6573_5546 => Self::Elsewhere("fuse"),
            // ext2 to ext4, unless data goes through the journal, and tmpfs. xfs may share extents, and
            // copies a shared one; the key file's are never shared but by a snapshot.
            0xEF53 if data_is_journaled(path) => Self::Elsewhere("ext4 with data=journal"),
            0xEF53 | 0x0102_1994 | 0x5846_5342 => Self::InPlace,
            _ => Self::Unknown,
        })
    }

    /// Says once, when a store is opened, that deleting does not reach the disk.
    pub(super) fn warn_unless_in_place(self, home: &Path) {
        let home = home.display();
        match self {
            Self::InPlace => {}
            Self::Elsewhere(file_system) => tracing::warn!(
                %home,
                file_system,
                "deleted private keys may stay on this disk; keep the home on ext4 or xfs"
            ),
            Self::Unknown => tracing::debug!(%home, "it is not known what becomes of deleted keys"),
        }
    }
}

impl fmt::Display for Erasure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::InPlace => f.write_str("the file system overwrites what is deleted"),
            Self::Elsewhere(kind) => {
                write!(f, "the file system ({kind}) may keep what is deleted")
            }
            Self::Unknown => f.write_str("it is not known whether the file system overwrites"),
        }
    }
}

/// The magic number of the file system.
#[cfg(target_os = "linux")]
fn kind_of(path: &Path) -> Option<u32> {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "magic numbers have 32 bits; the field's type differs from machine to machine"
    )]
    rustix::fs::statfs(path).ok().map(|found| found.f_type as u32)
}

#[cfg(not(target_os = "linux"))]
fn kind_of(_path: &Path) -> Option<u32> {
    None
}

/// Whether the mount that holds a file was made with `data=journal`.
fn data_is_journaled(path: &Path) -> bool {
    let path = path.canonicalize().unwrap_or_else(|_| path.to_path_buf());
    let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    let of_path = mounts.lines().filter_map(|line| {
        let mut fields = line.split(' ').skip(1);
        let (place, options) = (fields.next()?, fields.nth(1)?);
        path.starts_with(place).then_some((place.len(), options))
    });
    // Of several mounts on one path the last one is seen.
    let holding = of_path.max_by_key(|(depth, _)| *depth);
    holding.is_some_and(|(_, options)| options.split(',').any(|option| option == "data=journal"))
}
