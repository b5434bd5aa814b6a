//! The kinds of load, and the scripts of their connections.
//!
//! Every connection has pools of its own and takes their packages in their order. So it is known beforehand
//! which package an answer will hold: the spending of it can be made and signed ahead, and the answer
//! checked.

use clap::ValueEnum;
use keypool_api::{Base64, ReserveRequest, SpendRequest, UploadRequest};
use keypool_ledger::{Clock, GroupId, ReservationId, SystemClock};
use uuid::Uuid;

use crate::{
    Outcome,
    client::{Operation, Step},
    image::Contents,
    packages::Packages,
    population::{Device, PACKAGES, facts},
    request::{Auth, get, post},
};

/// How many packages an upload has.
const UPLOAD: usize = 32;
/// How many packages an upload of the mix has: as many as the mix uses up between two uploads.
const MIX_UPLOAD: usize = 4;
/// The mix, in its order: 70 % status, 20 % reserve and spend, 5 % upload, 5 % events.
const MIX: [Part; 20] = [
    Part::Status,
    Part::Pair,
    Part::Status,
    Part::Status,
    Part::Status,
    Part::Status,
    Part::Pair,
    Part::Status,
    Part::Status,
    Part::Upload,
    Part::Status,
    Part::Pair,
    Part::Status,
    Part::Status,
    Part::Status,
    Part::Status,
    Part::Pair,
    Part::Status,
    Part::Status,
    Part::Events,
];

#[derive(Clone, Copy)]
enum Part {
    Status,
    Pair,
    Upload,
    Events,
}

/// A kind of load.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, ValueEnum)]
pub(crate) enum Workload {
    /// Reserve a package
    Reserve,
    /// Reserve a package, and spend it when the answer is there: one operation
    Pair,
    /// Upload 32 packages
    Upload,
    /// Ask how full the own pool is
    Status,
    /// 70 % status, 20 % reserve and spend, 5 % upload of 4 packages, 5 % events
    Mix,
}

impl Workload {
    pub(crate) const ALL: [Self; 5] =
        [Self::Reserve, Self::Pair, Self::Upload, Self::Status, Self::Mix];

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Reserve => "reserve",
            Self::Pair => "reserve → spend",
            Self::Upload => "upload of 32",
            Self::Status => "status",
            Self::Mix => "mix",
        }
    }
}

/// One measurement: a load, over so many connections, with so many operations at most.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Cell {
    pub(crate) workload: Workload,
    pub(crate) concurrency: usize,
    pub(crate) operations: usize,
}

impl Cell {
    /// How many operations each connection has.
    const fn share(self) -> usize {
        self.operations.div_ceil(self.concurrency)
    }

    /// How many pools with packages, and how many devices without, it needs.
    fn needs(self) -> (u64, u64) {
        let pools = |count: usize, each: usize| (count.div_ceil(each) * self.concurrency) as u64;
        let (share, stock) = (self.share(), usize::try_from(PACKAGES).unwrap_or(usize::MAX));
        match self.workload {
            Workload::Reserve | Workload::Pair => (pools(share, stock), 0),
            Workload::Upload => (0, pools(share, 1)),
            Workload::Status => (1, 0),
            Workload::Mix => {
                let rounds = share.div_ceil(MIX.len());
                (pools(rounds * 4, stock), pools(rounds, UPLOAD / MIX_UPLOAD))
            }
        }
    }
}

/// The contents that the log must have for some measurements.
pub(crate) fn contents(cells: &[Cell]) -> Contents {
    let (mut stocked, mut empty) = (0, 0);
    for (some, none) in cells.iter().map(|cell| cell.needs()) {
        stocked += some;
        empty += none;
    }
    // Somebody must ask for the packages of a single pool.
    Contents { stocked, devices: stocked + empty + 1, ..Contents::default() }
}

/// Who is there, and which pools were not used yet.
pub(crate) struct Stock<'a> {
    devices: &'a [Device],
    packages: &'a mut Packages,
    next_stocked: u64,
    next_empty: u64,
}

impl<'a> Stock<'a> {
    pub(crate) fn new(
        contents: Contents,
        devices: &'a [Device],
        packages: &'a mut Packages,
    ) -> Self {
        Self { devices, packages, next_stocked: 0, next_empty: contents.stocked }
    }

    /// Leaves out a measurement: the next ones have the same pools as if it had been made.
    pub(crate) fn pass(&mut self, cell: Cell) {
        let (stocked, empty) = cell.needs();
        self.next_stocked += stocked;
        self.next_empty += empty;
    }

    /// The scripts of a measurement's connections. With `keeps_packages`, the answers are checked: a
    /// reservation gets the next package of the pool.
    pub(crate) fn scripts(
        &mut self,
        cell: Cell,
        auth: Auth,
        keeps_packages: bool,
    ) -> Outcome<Vec<Vec<Operation>>> {
        let mut scripts = Vec::with_capacity(cell.concurrency);
        let (stocked, empty) = cell.needs();
        let connections = cell.concurrency as u64;
        for connection in 0..connections {
            let pools = stocked.div_ceil(connections);
            let empty = empty / connections;
            let begin = match cell.workload {
                Workload::Status => self.next_stocked,
                _ => self.next_stocked + connection * pools,
            };
            let writer = ScriptWriter {
                auth,
                keeps_packages,
                pools: begin..begin + pools,
                empty: self.next_empty + connection * empty
                    ..self.next_empty + (connection + 1) * empty,
            };
            scripts.push(writer.write(cell, self.devices, self.packages)?);
        }
        self.pass(cell);
        Ok(scripts)
    }
}

/// Writes the script of one connection.
struct ScriptWriter {
    auth: Auth,
    keeps_packages: bool,
    pools: std::ops::Range<u64>,
    empty: std::ops::Range<u64>,
}

impl ScriptWriter {
    fn write(
        &self,
        cell: Cell,
        devices: &[Device],
        packages: &mut Packages,
    ) -> Outcome<Vec<Operation>> {
        let (mut pairs, mut uploads) = (0, 0);
        let mut script = Vec::with_capacity(cell.share());
        for place in 0..cell.share() {
            let part = MIX.get(place % MIX.len()).copied().unwrap_or(Part::Status);
            let steps = match (cell.workload, part) {
                (Workload::Reserve, _) => self.reserve(devices, place as u64, false)?,
                (Workload::Pair, _) => self.reserve(devices, place as u64, true)?,
                (Workload::Upload, _) => {
                    vec![self.upload(devices, packages, place, UPLOAD)?]
                }
                (Workload::Status, _) | (Workload::Mix, Part::Status) => {
                    vec![self.read(devices, "/keypackages/status", "")?]
                }
                (Workload::Mix, Part::Pair) => {
                    pairs += 1;
                    self.reserve(devices, pairs - 1, true)?
                }
                (Workload::Mix, Part::Upload) => {
                    uploads += 1;
                    vec![self.upload(devices, packages, uploads - 1, MIX_UPLOAD)?]
                }
                (Workload::Mix, Part::Events) => {
                    vec![self.read(devices, "/keypackages/events", "?limit=20")?]
                }
            };
            script.push(Operation { steps });
        }
        Ok(script)
    }

    /// The `nth` reservation of this connection, and its spending if that is asked for.
    fn reserve(&self, devices: &[Device], nth: u64, spend: bool) -> Outcome<Vec<Step>> {
        let count = (self.pools.end - self.pools.start).max(1);
        let number = self.pools.start + nth % count;
        let (owner, caller) = (device(devices, number)?, device(devices, number + 1)?);
        let keypackage_ref = facts(number, nth / count, SystemClock.now())?.keypackage_ref;
        let reservation_id = ReservationId(Uuid::new_v4());
        let group_id = GroupId::new(b"a group of some friends")?;
        let asked = ReserveRequest {
            target_user: owner.pool.user().to_owned(),
            target_device: Some(owner.pool.device().to_owned()),
            group_id: group_id.clone(),
            reservation_id: Some(reservation_id),
            ciphersuites: Vec::new(),
            required: None,
            contact_token: None,
        };
        let request = post(self.auth, caller, "/keypackages/reserve", &asked)?;
        let expect = self.keeps_packages.then(|| keypackage_ref.to_string());
        let mut steps = vec![Step { request, expect }];
        if spend {
            let asked = SpendRequest { keypackage_ref, reservation_id, group_id, added_by: None };
            let request = post(self.auth, caller, "/keypackages/spend", &asked)?;
            steps.push(Step { request, expect: Some("\"spent\":true".to_owned()) });
        }
        Ok(steps)
    }

    /// The `nth` upload of this connection. A device's pool takes 32 packages from it in all.
    fn upload(
        &self,
        devices: &[Device],
        packages: &mut Packages,
        nth: usize,
        count: usize,
    ) -> Outcome<Step> {
        let skip = nth * count;
        let number = self.empty.start + (skip / UPLOAD) as u64;
        let packages = packages.of(number, skip % UPLOAD, count)?;
        let keypackages = packages.iter().map(|bytes| Base64(bytes.clone())).collect();
        let asked = UploadRequest { keypackages };
        let caller = device(devices, number)?;
        let request = post(self.auth, caller, "/keypackages/upload", &asked)?;
        Ok(Step { request, expect: Some(format!("\"accepted\":{count}")) })
    }

    fn read(&self, devices: &[Device], path: &str, query: &str) -> Outcome<Step> {
        let caller = device(devices, self.pools.start)?;
        Ok(Step { request: get(self.auth, caller, path, query)?, expect: None })
    }
}

fn device(devices: &[Device], number: u64) -> Outcome<&Device> {
    let device = usize::try_from(number).ok().and_then(|number| devices.get(number));
    device.ok_or_else(|| "more devices are needed than there are".into())
}
