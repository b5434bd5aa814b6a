//! The load of a device on a machine in a day, and the number of devices that exhaust each resource.

use super::figures::{File, Usage};

const DAY_S: f64 = 86_400.0;
const YEAR_DAYS: f64 = 365.0;
const MIB: f64 = 1_048_576.0;
const GIB: f64 = 1024.0 * MIB;
/// How many commands share one durable write at most.
const GROUP_MAX: f64 = 256.0;

/// The day of one device.
pub(crate) struct Day {
    pub(crate) uploaded: f64,
    pub(crate) expired: f64,
    pub(crate) uploads: f64,
    /// Reservations, renewals and spends.
    pub(crate) claims: f64,
    pub(crate) reads: f64,
    pub(crate) events: f64,
}

impl Day {
    /// A pool is refilled when it is low, or when its packages have ended: whichever comes first.
    pub(crate) fn of(usage: &Usage) -> Self {
        let invited = usage.invitations_per_device_day;
        let used_up_days = (usage.pool_target - usage.pool_low) / invited;
        let is_used_up = used_up_days <= usage.package_lifetime_days;
        let (refill, uploads) = if is_used_up {
            (usage.pool_target - usage.pool_low, 1.0 / used_up_days)
        } else {
            (usage.pool_target, 1.0 / usage.package_lifetime_days)
        };
        let uploaded = refill * uploads;
        let expired = (uploaded - invited).max(0.0);
        let claims = invited * (2.0 + usage.renewals_per_invitation);
        let reads = usage.refreshes_per_device_day * usage.reads_per_refresh;
        Self { uploaded, expired, uploads, claims, reads, events: uploaded + expired + claims }
    }

    fn signed_requests(&self) -> f64 {
        self.uploads + self.claims + self.reads
    }
}

/// One thing that a machine has so much of.
pub(crate) struct Resource {
    pub(crate) name: &'static str,
    /// The need of a device and the stock of a machine, in words.
    pub(crate) device: String,
    pub(crate) machine: String,
    /// Which share of the machine a device takes: at the peak, or at the end of the years.
    share: f64,
}

impl Resource {
    /// How many devices a machine carries as far as this goes.
    pub(crate) fn devices(&self, planned_share: f64) -> f64 {
        planned_share / self.share
    }

    /// Which share of it so many devices take.
    pub(crate) fn used_by(&self, devices: f64) -> f64 {
        self.share * devices
    }
}

/// All resources of the machine.
pub(crate) fn resources(file: &File) -> Vec<Resource> {
    let day = Day::of(&file.usage);
    vec![
        requests(file, &day),
        committer(file, &day),
        durable_writes(file, &day),
        written_bytes(file, &day),
        admission(file, &day),
        signatures(file, &day),
        disk_space(file, &day),
        memory(file, &day),
    ]
}

/// The two that are exhausted first, the first of them first.
pub(crate) fn walls(resources: &[Resource]) -> Option<[&Resource; 2]> {
    let mut sorted: Vec<&Resource> = resources.iter().collect();
    sorted.sort_by(|one, other| other.share.total_cmp(&one.share));
    sorted.first_chunk().copied()
}

/// How much disk and how many events a device leaves in a year.
pub(crate) fn disk_bytes_year(file: &File, day: &Day) -> f64 {
    let bytes = &file.measured;
    let later = day.events - day.uploaded;
    YEAR_DAYS
        * (day.uploaded * bytes.bytes_per_package_disk.value
            + later * bytes.bytes_per_event_disk.value)
}

/// How long a machine with so many devices takes to start after a stop, in seconds: it reads the summary
/// of each pool, and of the events only those behind the last snapshot.
pub(crate) fn start_s(file: &File, devices: f64) -> f64 {
    devices / 2e5 * file.measured.start_ms_200k_pools.value / 1e3
}

/// The seconds of a machine that a device's requests take, as measured from end to end.
fn requests(file: &File, day: &Day) -> Resource {
    let measured = &file.measured;
    let busy_s = day.claims / measured.reserve_per_s_64.value
        + day.uploads / measured.upload32_per_s.value
        + day.reads / measured.status_per_s.value;
    of_a_day("requests, end to end", busy_s, 1.0, file)
}

fn committer(file: &File, day: &Day) -> Resource {
    let busy_s = (day.claims + day.uploads) / file.measured.commands_per_s_64.value;
    of_a_day("the one thread that writes", busy_s, 1.0, file)
}

fn durable_writes(file: &File, day: &Day) -> Resource {
    let busy_s = (day.claims + day.uploads) * file.measured.fdatasync_us.value / 1e6 / GROUP_MAX;
    of_a_day("fdatasync, in full groups", busy_s, 1.0, file)
}

fn written_bytes(file: &File, day: &Day) -> Resource {
    let per_s = file.measured.disk_mib_per_s.value * MIB;
    of_a_day("writing to the disk", disk_bytes_year(file, day) / YEAR_DAYS / per_s, 1.0, file)
}

fn admission(file: &File, day: &Day) -> Resource {
    let busy_s = day.uploaded * file.measured.admission_us_per_package.value / 1e6;
    of_a_day("cores, for admission", busy_s, file.machine.cores, file)
}

fn signatures(file: &File, day: &Day) -> Resource {
    let busy_s = day.signed_requests() * file.measured.verify_signature_us.value / 1e6;
    of_a_day("cores, for signed requests", busy_s, file.machine.cores, file)
}

/// Something that works so many seconds for a device and day, and of which a machine has so many.
fn of_a_day(name: &'static str, busy_s: f64, count: f64, file: &File) -> Resource {
    let share = busy_s * file.usage.peak_factor / (DAY_S * count);
    let device = format!("{:.1} µs a day", busy_s * 1e6);
    Resource { name, device, machine: format!("{count} × 24 h"), share }
}

fn disk_space(file: &File, day: &Day) -> Resource {
    let (years, gib) = (file.machine.history_years, file.machine.disk_gib);
    let bytes = disk_bytes_year(file, day) * years;
    Resource {
        name: "disk space",
        device: format!("{:.2} MiB in {years} year", bytes / MIB),
        machine: format!("{gib} GiB"),
        share: bytes / (gib * GIB),
    }
}

fn memory(file: &File, day: &Day) -> Resource {
    let (measured, machine) = (&file.measured, &file.machine);
    let resident = file.usage.pool_target * measured.bytes_per_package_memory.value;
    let events = day.events * YEAR_DAYS * machine.history_years;
    let bytes = measured.bytes_per_idle_pool.value
        + machine.pools_in_memory_share * resident
        + events * measured.bytes_per_event_memory.value;
    Resource {
        name: "memory",
        device: format!("{:.1} KiB after {} year", bytes / 1024.0, machine.history_years),
        machine: format!("{} GiB", machine.memory_gib),
        share: bytes / (machine.memory_gib * GIB),
    }
}
