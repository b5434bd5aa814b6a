//! The figures as docs/figures.toml has them: measured ones and assumed ones.

use serde::Deserialize;

/// The whole file.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct File {
    pub(crate) measured: Measured,
    pub(crate) machine: Machine,
    #[serde(rename = "use")]
    pub(crate) usage: Usage,
}

/// Something that was measured.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Figure {
    pub(crate) value: f64,
    pub(crate) unit: String,
    /// The day and the commit, for the page.
    pub(crate) date: String,
    pub(crate) commit: String,
    /// The command, or in words how it came about.
    pub(crate) how: String,
}

/// All that was measured, on one machine.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Measured {
    pub(crate) reserve_per_s_64: Figure,
    pub(crate) upload32_per_s: Figure,
    pub(crate) status_per_s: Figure,
    pub(crate) commands_per_s_64: Figure,
    pub(crate) fdatasync_us: Figure,
    pub(crate) disk_mib_per_s: Figure,
    pub(crate) admission_us_per_package: Figure,
    pub(crate) verify_signature_us: Figure,
    pub(crate) bytes_per_package_disk: Figure,
    pub(crate) bytes_per_event_disk: Figure,
    pub(crate) bytes_per_idle_pool: Figure,
    pub(crate) bytes_per_package_memory: Figure,
    pub(crate) bytes_per_event_memory: Figure,
    pub(crate) start_ms_200k_pools: Figure,
}

impl Measured {
    /// All figures with their names, in the order of the file.
    pub(crate) fn all(&self) -> [(&'static str, &Figure); 14] {
        [
            ("reserve_per_s_64", &self.reserve_per_s_64),
            ("upload32_per_s", &self.upload32_per_s),
            ("status_per_s", &self.status_per_s),
            ("commands_per_s_64", &self.commands_per_s_64),
            ("fdatasync_us", &self.fdatasync_us),
            ("disk_mib_per_s", &self.disk_mib_per_s),
            ("admission_us_per_package", &self.admission_us_per_package),
            ("verify_signature_us", &self.verify_signature_us),
            ("bytes_per_package_disk", &self.bytes_per_package_disk),
            ("bytes_per_event_disk", &self.bytes_per_event_disk),
            ("bytes_per_idle_pool", &self.bytes_per_idle_pool),
            ("bytes_per_package_memory", &self.bytes_per_package_memory),
            ("bytes_per_event_memory", &self.bytes_per_event_memory),
            ("start_ms_200k_pools", &self.start_ms_200k_pools),
        ]
    }
}

/// The machine that is computed with. Its cores are those that were measured on.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Machine {
    pub(crate) cores: f64,
    pub(crate) memory_gib: f64,
    pub(crate) disk_gib: f64,
    /// How much of anything is planned to be used at the peak; the rest is for bad days.
    pub(crate) planned_share: f64,
    /// Which share of the pools is kept in memory.
    pub(crate) pools_in_memory_share: f64,
    /// For how many years histories are kept on the machine.
    pub(crate) history_years: f64,
}

/// The behaviour of devices. Assumed, not measured.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Usage {
    pub(crate) devices_per_user: f64,
    pub(crate) invitations_per_device_day: f64,
    pub(crate) renewals_per_invitation: f64,
    pub(crate) refreshes_per_device_day: f64,
    pub(crate) reads_per_refresh: f64,
    /// How many packages a full pool has, and at how many it is refilled.
    pub(crate) pool_target: f64,
    pub(crate) pool_low: f64,
    pub(crate) package_lifetime_days: f64,
    /// How much more happens in the busiest second than on the average.
    pub(crate) peak_factor: f64,
    /// How popular people are: the nth of them is invited as often as n to the power of minus this.
    pub(crate) popularity_exponent: f64,
}
