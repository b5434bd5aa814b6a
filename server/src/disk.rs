//! Watches how much room the disk of the log has, and keeps the rest of it for reservations and spends.
//!
//! Below a mark the delivery is refused; at half of it uploads and registrations are, too; at a quarter
//! reservations and spends. Requests that free or return something are never refused.

use std::{
    io,
    path::Path,
    str::FromStr,
    sync::atomic::{AtomicU8, AtomicU64, Ordering},
};

use keypool_api::Code;

use crate::problem::Failure;

/// The usual mark: so many hundredths of the disk.
const USUAL_PERCENT: u64 = 5;
/// The least that the usual mark is, in bytes.
const USUAL_BYTES_MIN: u64 = 256 << 20;

/// The mark below which room is kept for reservations and spends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LowWater {
    /// A twentieth of the disk, and 256 MiB at least.
    #[default]
    Usual,
    /// So many hundredths of the disk.
    Percent(u8),
    /// So many bytes.
    Bytes(u64),
}

impl LowWater {
    fn mark(self, total: u64) -> u64 {
        let percent = |percent| total / 100 * percent;
        match self {
            Self::Usual => percent(USUAL_PERCENT).max(USUAL_BYTES_MIN),
            Self::Percent(share) => percent(u64::from(share)),
            Self::Bytes(bytes) => bytes,
        }
    }
}

impl FromStr for LowWater {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let none = || format!("{text:?} is no mark such as \"5%\", \"512MiB\" or \"0\" for none");
        if let Some(share) = text.strip_suffix('%') {
            let share: u8 = share.trim().parse().map_err(|_| none())?;
            return if share < 100 { Ok(Self::Percent(share)) } else { Err(none()) };
        }
        let units = [("KiB", 10), ("MiB", 20), ("GiB", 30), ("TiB", 40)];
        let unit =
            units.into_iter().find_map(|(unit, bits)| Some((text.strip_suffix(unit)?, bits)));
        let (count, bits) = unit.unwrap_or((text, 0));
        let count: u64 = count.trim().parse().map_err(|_| none())?;
        count.checked_mul(1 << bits).map(Self::Bytes).ok_or_else(none)
    }
}

/// The room on a disk, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct DiskRoom {
    pub(crate) free: u64,
    total: u64,
}

impl DiskRoom {
    /// The room on the disk of a directory.
    pub(crate) fn of(dir: &Path) -> io::Result<Self> {
        let found = rustix::fs::statvfs(dir)?;
        let bytes = |blocks: u64| blocks.saturating_mul(found.f_frsize);
        Ok(Self { free: bytes(found.f_bavail), total: bytes(found.f_blocks) })
    }

    fn level(self, low_water: LowWater) -> DiskLevel {
        let mark = low_water.mark(self.total);
        match self.free {
            free if mark <= free => DiskLevel::Enough,
            free if mark / 2 <= free => DiskLevel::Low,
            free if mark / 4 <= free => DiskLevel::VeryLow,
            _ => DiskLevel::Full,
        }
    }
}

/// Level of the room that is left, by the requests it refuses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub(crate) enum DiskLevel {
    Enough,
    /// The delivery is refused.
    Low,
    /// Uploads and registrations are refused, too.
    VeryLow,
    /// Reservations and spends are refused, too.
    Full,
}

impl DiskLevel {
    const ALL: [Self; 4] = [Self::Enough, Self::Low, Self::VeryLow, Self::Full];

    /// Names the refused requests, as a sentence; none if nothing is refused.
    pub(crate) const fn refused(self) -> Option<&'static str> {
        match self {
            Self::Enough => None,
            Self::Low => Some("the disk of the log is low: the delivery is refused"),
            Self::VeryLow => Some(
                "the disk of the log is low: the delivery, uploads and registrations are refused",
            ),
            Self::Full => Some("the disk of the log is nearly full: what needs room is refused"),
        }
    }

    /// From which level on a route is refused; none if it never is.
    fn that_refuses(route: &str) -> Option<Self> {
        match route {
            "/keypackages/upload" | "/keypackages/rotate" | "/devices" => Some(Self::VeryLow),
            "/keypackages/reserve"
            | "/keypackages/reserve-many"
            | "/keypackages/renew"
            | "/keypackages/spend" => Some(Self::Full),
            // A member who leaves frees room.
            "/groups/{group_id}/leave" => None,
            "/keypackages/await" => Some(Self::Low),
            route if route.starts_with("/groups") => Some(Self::Low),
            _ => None,
        }
    }
}

/// Last look at the disk.
#[derive(Debug, Default)]
pub(crate) struct Disk {
    level: AtomicU8,
    free: AtomicU64,
}

impl Disk {
    pub(crate) fn level(&self) -> DiskLevel {
        let level = usize::from(self.level.load(Ordering::Relaxed));
        DiskLevel::ALL.get(level).copied().unwrap_or(DiskLevel::Enough)
    }

    /// Free bytes at the last look.
    pub(crate) fn free(&self) -> u64 {
        self.free.load(Ordering::Relaxed)
    }

    /// Takes in how much room there is, and says so in the log where that changes anything.
    pub(crate) fn observe(&self, room: DiskRoom, low_water: LowWater) {
        let (before, level) = (self.level(), room.level(low_water));
        self.free.store(room.free, Ordering::Relaxed);
        self.level.store(level as u8, Ordering::Relaxed);
        let free_bytes = room.free;
        match level.refused() {
            Some(refused) if level != before => tracing::warn!(free_bytes, "{refused}"),
            None if level != before => {
                tracing::info!(free_bytes, "the disk of the log has room again");
            }
            Some(_) | None => {}
        }
    }

    /// Refuses a changing request that there is no room for.
    pub(crate) fn check(&self, route: &str) -> Result<(), Failure> {
        let level = self.level();
        match (DiskLevel::that_refuses(route), level.refused()) {
            (Some(from), Some(detail)) if from <= level => {
                Err(Failure::new(Code::LogUnavailable, detail))
            }
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_is_a_share_of_the_disk_or_a_number_of_bytes() {
        let mark = |text: &str| text.parse::<LowWater>().map(|mark| mark.mark(100 << 30));
        assert_eq!(mark("5%"), Ok(5 << 30));
        assert_eq!(mark("512MiB"), Ok(512 << 20));
        assert_eq!(mark("1 GiB"), Ok(1 << 30));
        assert_eq!(mark("4096"), Ok(4096));
        assert_eq!(mark("0"), Ok(0));
        for text in ["", "100%", "5 %%", "many", "-1", "99999999999TiB"] {
            assert!(mark(text).is_err(), "{text}");
        }
        assert_eq!(LowWater::Usual.mark(100 << 30), 5 << 30);
        assert_eq!(LowWater::Usual.mark(1 << 30), 256 << 20);
    }

    #[test]
    fn what_needs_room_is_refused_step_by_step() {
        let refused = |free| {
            let disk = Disk::default();
            disk.observe(DiskRoom { free, total: 100_000 }, LowWater::Bytes(1000));
            let routes = [
                "/groups/{group_id}/messages",
                "/keypackages/upload",
                "/keypackages/reserve",
                "/mailbox/acknowledge",
                "/groups/{group_id}/leave",
            ];
            routes.map(|route| disk.check(route).is_err())
        };
        assert_eq!(refused(1000), [false; 5]);
        assert_eq!(refused(999), [true, false, false, false, false]);
        assert_eq!(refused(499), [true, true, false, false, false]);
        assert_eq!(refused(249), [true, true, true, false, false]);
        assert_eq!(refused(0), [true, true, true, false, false]);
    }
}
