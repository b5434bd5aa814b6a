//! The server's counters, for Prometheus. No user, device or key is ever a label.

use std::{
    collections::HashMap,
    sync::{PoisonError, RwLock},
};

use keypool_api::{Code, ReportReason};
use keypool_ledger::{EventLog, ReplicaHealth, ReplicaProgress, ReplicatedLog};
use keypool_projections::quota::Quota;
use metrics::{
    Counter, Histogram, Unit, counter, describe_counter, describe_gauge, describe_histogram, gauge,
    histogram,
};
use metrics_exporter_prometheus::{
    BuildError, PrometheusBuilder, PrometheusHandle, PrometheusRecorder,
};

use crate::{
    admission::Check, connections::bound::Bound, disk::Disk, keypackage_store::KeyPackageStore,
    open_requests::OpenRequests, problem::ReachedLimit, quota::Addresses,
    stream_watch::StreamReport, transparency::Ledger,
};

/// The upper ends of the latency histogram, in seconds.
const LATENCY_BUCKETS: [f64; 12] =
    [0.000_5, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0];

/// Codes of devices for which a request for many has no package.
const MISSING: [Code; 10] = [
    Code::PoolExhausted,
    Code::NothingCompatible,
    Code::RequirementUnmet,
    Code::UnknownUser,
    Code::NotAllowed,
    Code::NotAMember,
    Code::ReservationLost,
    Code::TooLarge,
    Code::RateLimited,
    Code::TooManyReservations,
];
/// Reasons for which packages are reported.
const REASONS: [ReportReason; 8] = [
    ReportReason::Encoding,
    ReportReason::Reference,
    ReportReason::Identity,
    ReportReason::Lifetime,
    ReportReason::Ciphersuite,
    ReportReason::Validity,
    ReportReason::Keys,
    ReportReason::Other,
];

/// The counters of one server. They are its own, so that several can run in one process.
pub(crate) struct Metrics {
    recorder: PrometheusRecorder,
    handle: PrometheusHandle,
    /// The metrics of the kinds of answers that were given, by route.
    answers: RwLock<HashMap<String, Vec<AnswerMetrics>>>,
}

/// Figures of a moment, beside those of the store.
pub(crate) struct Figures<'a> {
    pub(crate) is_ready: bool,
    pub(crate) disk: &'a Disk,
    pub(crate) addresses: &'a Addresses,
    pub(crate) connections: usize,
    pub(crate) streams: &'a OpenRequests,
    pub(crate) polls: &'a OpenRequests,
    /// The replicated log, in a cluster.
    pub(crate) replica: Option<&'a ReplicatedLog>,
    /// The last known state of its stream.
    pub(crate) stream: Option<StreamReport>,
}

/// One request that was answered.
pub(crate) struct ServedRequest {
    /// The pattern of the route, never the path itself.
    pub(crate) route: String,
    /// The method.
    pub(crate) method: &'static str,
    /// The status.
    pub(crate) status: u16,
    /// How long it took.
    pub(crate) seconds: f64,
    /// The code of the problem, if it was one.
    pub(crate) code: Option<&'static str>,
    /// The limit that was reached, if the request was refused for that.
    pub(crate) limit: Option<ReachedLimit>,
    /// The package it was about, in short, for the log alone.
    pub(crate) package: Option<String>,
}

/// The metrics of one kind of answer: looking them up by their labels takes longer than counting.
#[derive(Clone)]
struct AnswerMetrics {
    method: &'static str,
    status: u16,
    total: Counter,
    seconds: Histogram,
}

impl AnswerMetrics {
    /// Registers the metrics of a kind of answer at the local recorder.
    fn of(ServedRequest { route, method, status, .. }: &ServedRequest) -> Self {
        let labels = [
            ("route", route.clone()),
            ("method", (*method).to_owned()),
            ("status", status.to_string()),
        ];
        let total = counter!("keypool_http_requests_total", &labels);
        let seconds = histogram!("keypool_http_request_seconds", "route" => route.clone());
        Self { method, status: *status, total, seconds }
    }
}

impl Metrics {
    /// Starts the counters; `routes` are the path and method of each route, which are counted from zero.
    pub(crate) fn new(routes: Vec<(String, &'static str)>) -> Result<Self, BuildError> {
        let recorder = PrometheusBuilder::new().set_buckets(&LATENCY_BUCKETS)?.build_recorder();
        metrics::with_local_recorder(&recorder, || {
            describe();
            describe_stream();
            start_at_zero(routes);
        });
        Ok(Self { handle: recorder.handle(), recorder, answers: RwLock::default() })
    }

    pub(crate) fn served(&self, served: &ServedRequest) {
        let AnswerMetrics { total, seconds, .. } = self.answer_metrics(served);
        total.increment(1);
        seconds.record(served.seconds);
        if let Some(code) = served.code {
            metrics::with_local_recorder(&self.recorder, || {
                counter!("keypool_problems_total", "code" => code).increment(1);
            });
        }
        if let Some(ReachedLimit::Quota(quota)) = served.limit {
            self.over_quota(quota);
        }
    }

    /// Finds the metrics of a kind of answer, which are registered with its first answer.
    fn answer_metrics(&self, served: &ServedRequest) -> AnswerMetrics {
        let is_it =
            |known: &&AnswerMetrics| (known.method, known.status) == (served.method, served.status);
        let answers = self.answers.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = answers.get(&served.route).and_then(|all| all.iter().find(is_it)) {
            return known.clone();
        }
        drop(answers);
        let new = metrics::with_local_recorder(&self.recorder, || AnswerMetrics::of(served));
        let mut answers = self.answers.write().unwrap_or_else(PoisonError::into_inner);
        answers.entry(served.route.clone()).or_default().push(new.clone());
        new
    }

    /// Counts a refusal by a rate limit.
    pub(crate) fn over_quota(&self, quota: Quota) {
        metrics::with_local_recorder(&self.recorder, || {
            counter!("keypool_quota_refusals_total", "quota" => quota.word()).increment(1);
        });
    }

    pub(crate) fn uploaded(&self, stored: u64) {
        self.count("keypool_packages_stored_total", stored);
    }

    pub(crate) fn not_admitted(&self, check: &str) {
        metrics::with_local_recorder(&self.recorder, || {
            let labels = [("check", check.to_owned())];
            counter!("keypool_packages_refused_total", &labels).increment(1);
        });
    }

    pub(crate) fn reserved(&self, count: u64) {
        self.count("keypool_reservations_total", count);
    }

    pub(crate) fn missing(&self, code: &'static str) {
        metrics::with_local_recorder(&self.recorder, || {
            counter!("keypool_missing_total", "code" => code).increment(1);
        });
    }

    pub(crate) fn reported(&self, reason: &'static str) {
        metrics::with_local_recorder(&self.recorder, || {
            counter!("keypool_reports_total", "reason" => reason).increment(1);
        });
    }

    /// Counts spends inside a Commit, which was accepted with them.
    pub(crate) fn spent_in_commit(&self, count: u64) {
        metrics::with_local_recorder(&self.recorder, || {
            counter!("keypool_spends_total", "late" => "false").increment(count);
        });
    }

    pub(crate) fn spent(&self, late: bool) {
        let late = if late { "true" } else { "false" };
        metrics::with_local_recorder(&self.recorder, || {
            counter!("keypool_spends_total", "late" => late).increment(1);
        });
    }

    pub(crate) fn conflict(&self) {
        self.count("keypool_conflicts_total", 1);
    }

    pub(crate) fn connection_refused(&self, bound: Bound) {
        metrics::with_local_recorder(&self.recorder, || {
            counter!("keypool_connections_refused_total", "bound" => bound.word()).increment(1);
        });
    }

    /// Counts events that the app's backend has.
    pub(crate) fn webhook_delivered(&self, events: u64) {
        self.count("keypool_webhook_delivered_total", events);
    }

    /// Counts a webhook request that delivered nothing.
    pub(crate) fn webhook_failed(&self) {
        self.count("keypool_webhook_failed_total", 1);
    }

    /// Counts bytes of payloads that have left the log.
    pub(crate) fn pruned(&self, bytes: u64) {
        self.count("keypool_pruned_bytes_total", bytes);
    }

    /// Sets how many records of the log may still cause an event.
    pub(crate) fn webhook_lag(&self, records: u64) {
        metrics::with_local_recorder(&self.recorder, || {
            position("keypool_webhook_lag_records", records);
        });
    }

    fn count(&self, name: &'static str, by: u64) {
        metrics::with_local_recorder(&self.recorder, || counter!(name).increment(by));
    }

    /// Drops old samples; to be called now and then.
    pub(crate) fn upkeep(&self) {
        self.handle.run_upkeep();
    }

    /// The text that Prometheus reads, with the store's figures as they are now.
    pub(crate) fn render<L: EventLog + 'static>(
        &self,
        store: Option<&KeyPackageStore<L>>,
        ledger: Option<&Ledger>,
        open: &Figures<'_>,
    ) -> String {
        metrics::with_local_recorder(&self.recorder, || {
            gauge!("keypool_ready").set(if open.is_ready { 1.0 } else { 0.0 });
            position("keypool_disk_free_bytes", open.disk.free());
            gauge!("keypool_disk_level").set(f64::from(open.disk.level() as u8));
            if let Some(store) = store {
                measure(store);
            }
            entries("addresses", open.addresses.len());
            number("keypool_connections", open.connections);
            number("keypool_streams", open.streams.len());
            number("keypool_mailbox_polls", open.polls.len());
            measure_stream(open);
            if let Some(ledger) = ledger {
                position("keypool_checkpoint_position", ledger.published().size());
                position("keypool_scrub_position", ledger.compared());
            }
        });
        self.handle.render()
    }
}

/// Measures the replicated stream; a server that runs alone has no such figures.
fn measure_stream(open: &Figures<'_>) {
    let known = open.stream.as_ref().and_then(|report| report.known.as_ref());
    if let Some(replica) = open.replica {
        let ReplicaProgress { taken_in, last } = replica.progress();
        position("keypool_stream_taken_in_frames", taken_in);
        let told = known.map_or(0, |(status, _)| status.last);
        position("keypool_stream_last_frame", last.max(told));
        let follows = replica.health() == ReplicaHealth::Following;
        gauge!("keypool_stream_followed").set(if follows { 1.0 } else { 0.0 });
    }
    if let Some(report) = &open.stream {
        gauge!("keypool_stream_has_leader").set(if report.has_leader { 1.0 } else { 0.0 });
    }
    if let Some((status, age)) = known {
        position("keypool_stream_lost_frames", status.lost);
        number("keypool_stream_current_replicas", status.current_replicas);
        number("keypool_stream_replicas", status.replicas);
        gauge!("keypool_stream_status_age_seconds").set(age.as_secs_f64());
    }
}

fn number(name: &'static str, count: usize) {
    gauge!(name).set(f64::from(u32::try_from(count).unwrap_or(u32::MAX)));
}

fn measure<L: EventLog + 'static>(store: &KeyPackageStore<L>) {
    let pools = store.pools();
    for (level, count) in pools.levels() {
        let count = u32::try_from(count).unwrap_or(u32::MAX);
        gauge!("keypool_pools", "level" => level.word()).set(f64::from(count));
    }
    let (inviters, buckets) = store.counted();
    entries("inviters", inviters);
    entries("pools", buckets);
    let queued = u32::try_from(pools.queued()).unwrap_or(u32::MAX);
    gauge!("keypool_queue_commands").set(f64::from(queued));
    if let Ok(head) = pools.log().head() {
        position("keypool_log_position", head.seq);
    }
}

fn entries(of: &'static str, count: usize) {
    let count = u32::try_from(count).unwrap_or(u32::MAX);
    gauge!("keypool_quota_entries", "of" => of).set(f64::from(count));
}

#[expect(clippy::cast_precision_loss, reason = "exact up to nine quadrillion events")]
fn position(name: &'static str, seq: u64) {
    gauge!(name).set(seq as f64);
}

/// Starts each counter whose labels are known at zero, so that its first count is an increase.
fn start_at_zero(routes: Vec<(String, &'static str)>) {
    for (route, method) in routes {
        let labels =
            [("route", route), ("method", method.to_owned()), ("status", "200".to_owned())];
        counter!("keypool_http_requests_total", &labels).absolute(0);
    }
    let labelled: [(&'static str, &'static str, Vec<&'static str>); 7] = [
        ("keypool_problems_total", "code", words(Code::ALL.iter().copied(), Code::word)),
        ("keypool_quota_refusals_total", "quota", words(Quota::ALL, Quota::word)),
        ("keypool_packages_refused_total", "check", words(Check::ALL, Check::name)),
        ("keypool_missing_total", "code", words(MISSING, Code::word)),
        ("keypool_reports_total", "reason", words(REASONS, ReportReason::word)),
        ("keypool_spends_total", "late", vec!["false", "true"]),
        ("keypool_connections_refused_total", "bound", words(Bound::ALL, Bound::word)),
    ];
    for (name, label, values) in labelled {
        for value in values {
            counter!(name, label => value).absolute(0);
        }
    }
    let plain = [
        "keypool_packages_stored_total",
        "keypool_reservations_total",
        "keypool_conflicts_total",
        "keypool_webhook_delivered_total",
        "keypool_webhook_failed_total",
        "keypool_pruned_bytes_total",
    ];
    for name in plain {
        counter!(name).absolute(0);
    }
    gauge!("keypool_webhook_lag_records").set(0.0);
}

fn words<T>(all: impl IntoIterator<Item = T>, word: fn(T) -> &'static str) -> Vec<&'static str> {
    all.into_iter().map(word).collect()
}

fn describe() {
    describe_counter!("keypool_http_requests_total", "Requests answered, by route and status.");
    describe_histogram!(
        "keypool_http_request_seconds",
        Unit::Seconds,
        "How long requests took, by route."
    );
    describe_counter!("keypool_problems_total", "Requests refused, by code.");
    describe_counter!(
        "keypool_quota_refusals_total",
        "What was asked for too often, by which limit; devices of a request for many included."
    );
    describe_gauge!("keypool_quota_entries", "What is counted for the limits, by what it is of.");
    describe_counter!("keypool_packages_stored_total", "Packages taken into a pool.");
    describe_counter!("keypool_packages_refused_total", "Packages refused, by admission check.");
    describe_counter!(
        "keypool_reservations_total",
        "Reservations answered, repeated ones included."
    );
    describe_counter!(
        "keypool_missing_total",
        "Devices for which a request for many had no package, by code."
    );
    describe_counter!("keypool_reports_total", "Packages reported as unusable, by reason.");
    describe_counter!("keypool_spends_total", "Spends answered, by whether they were late.");
    describe_counter!("keypool_conflicts_total", "Late spends refused: the package was handed on.");
    describe_gauge!("keypool_pools", "Pools, by how full their last change has left them.");
    describe_gauge!("keypool_queue_commands", "Commands waiting for the log.");
    describe_gauge!("keypool_log_position", "The place of the last event in the log.");
    describe_gauge!("keypool_checkpoint_position", "The last event that a checkpoint covers.");
    describe_gauge!(
        "keypool_scrub_position",
        "The last event that was compared with what was published of it, since the start."
    );
    describe_gauge!("keypool_disk_free_bytes", Unit::Bytes, "Free bytes on the disk of the log.");
    describe_gauge!(
        "keypool_disk_level",
        "What is refused for want of room: 0 nothing, 1 the delivery, 2 uploads too, 3 reserving too."
    );
    describe_gauge!("keypool_connections", "Open connections of clients.");
    describe_counter!(
        "keypool_connections_refused_total",
        "Connections refused, by the bound they were beyond: of the process or of an address."
    );
    describe_gauge!("keypool_streams", "Open streams of pools.");
    describe_gauge!(
        "keypool_mailbox_polls",
        "Requests that wait for something to come into a mailbox."
    );
    describe_counter!("keypool_pruned_bytes_total", "Bytes of payloads that have left the log.");
    describe_counter!("keypool_webhook_delivered_total", "Events that the app's backend took.");
    describe_counter!("keypool_webhook_failed_total", "Webhook requests that delivered nothing.");
    describe_gauge!(
        "keypool_webhook_lag_records",
        "Records of the log whose events the app's backend may not have yet."
    );
    describe_gauge!("keypool_ready", "1 while requests are taken, as /readyz says.");
}

/// The figures of a server in a cluster.
fn describe_stream() {
    describe_gauge!(
        "keypool_stream_followed",
        "In a cluster, 1 while the replicated stream is followed."
    );
    describe_gauge!("keypool_stream_taken_in_frames", "In a cluster, the last frame taken in.");
    describe_gauge!("keypool_stream_last_frame", "In a cluster, the stream's last known frame.");
    describe_gauge!(
        "keypool_stream_has_leader",
        "In a cluster, 1 while a node leads the stream and answers this server."
    );
    describe_gauge!(
        "keypool_stream_lost_frames",
        "In a cluster, frames that the stream's leader has lost."
    );
    describe_gauge!(
        "keypool_stream_current_replicas",
        "In a cluster, nodes whose copy of the stream is up to date."
    );
    describe_gauge!(
        "keypool_stream_replicas",
        "In a cluster, nodes that should have a copy of the stream."
    );
    describe_gauge!(
        "keypool_stream_status_age_seconds",
        Unit::Seconds,
        "In a cluster, the age of the last answer about the stream."
    );
}
