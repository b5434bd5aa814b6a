//! The overview: how full the pools are, the last hour, and the server's own state.

use std::{collections::BTreeMap, path::Path, time::Duration};

use keypool_ledger::Timestamp;
use keypool_projections::{
    Level,
    explanation::words::{one_line, span, time},
};
use maud::{Markup, html};

use super::{action_button, address, counted, page, paths, sparkline::sparkline};
use crate::{
    action::Action,
    disk_forecast::DiskTrend,
    metrics_text::MetricsText,
    overview::{MinuteCounts, PoolsOverview},
};

/// The most refusal codes that are listed.
const CODES_MAX: usize = 40;
const MEBIBYTE: f64 = 1_048_576.0;

/// The figures of the overview at a moment, as texts: the page shows them, and the live events bring them again.
#[derive(Clone, Debug)]
pub(crate) struct OverviewFigures {
    at: Timestamp,
    texts: BTreeMap<&'static str, String>,
    last_hour: Vec<MinuteCounts>,
    refusals: Vec<(String, f64)>,
}

impl OverviewFigures {
    /// Takes the figures of all pools, of a log that ends at the position `head`, and of the server.
    pub(crate) fn of(
        (pools, head): (&PoolsOverview, u64),
        metrics: MetricsText<'_>,
        (now, trend): (Timestamp, DiskTrend),
    ) -> Self {
        let last_hour = pools.last_hour(now);
        let lapsed: u64 = last_hour.iter().map(|minute| minute.lapsed).sum();
        let conflicts: u64 = last_hour.iter().map(|minute| minute.conflicts).sum();
        let codes = metrics.by_label("keypool_problems_total", "code");
        let mut refusals: Vec<(String, f64)> =
            codes.into_iter().map(|(code, count)| (code.to_owned(), count)).collect();
        refusals.sort_by(|(_, one), (_, other)| other.total_cmp(one));
        refusals.truncate(CODES_MAX);
        let requests: f64 = metrics.by_label("keypool_http_requests_total", "route").values().sum();
        let number =
            |name| metrics.value(name).map_or_else(|| "–".to_owned(), |value| value.to_string());
        let mut texts: BTreeMap<&'static str, String> =
            pools.levels().map(|(level, count)| (level.word(), count.to_string())).into();
        texts.extend([
            ("at", time(now)),
            ("open", pools.open_reservations().to_string()),
            ("lapsed", lapsed.to_string()),
            ("conflicts", conflicts.to_string()),
            ("position", number("keypool_log_position")),
            ("reading", reading_words(head.saturating_sub(pools.position()))),
            ("checkpoint", number("keypool_checkpoint_position")),
            ("scrub", number("keypool_scrub_position")),
            ("requests", requests.to_string()),
            ("connections", number("keypool_connections")),
            ("streams", number("keypool_streams")),
            ("polls", number("keypool_mailbox_polls")),
            ("queue", number("keypool_queue_commands")),
            ("ready", readiness(metrics.value("keypool_ready"))),
            (
                "free",
                metrics.value("keypool_disk_free_bytes").map_or_else(|| "–".to_owned(), mebibytes),
            ),
            ("full", trend_words(trend)),
        ]);
        Self { at: now, texts, last_hour, refusals }
    }

    /// The figures as the data of a live event.
    pub(crate) fn to_json(&self) -> String {
        serde_json::json!(self.texts).to_string()
    }

    fn text(&self, name: &str) -> &str {
        self.texts.get(name).map_or("", String::as_str)
    }
}

/// The words on records of the log that the page has not read yet; none if it is up to date.
fn reading_words(behind: u64) -> String {
    match behind {
        0 => String::new(),
        behind => format!(
            "The log is being read for this page: {} to go. Until then the figures of the pools are of an earlier \
             moment.",
            counted(behind, "record")
        ),
    }
}

fn readiness(ready: Option<f64>) -> String {
    let words =
        if ready == Some(1.0) { "takes requests" } else { "does not take requests: see /readyz" };
    words.to_owned()
}

fn trend_words(trend: DiskTrend) -> String {
    match trend {
        DiskTrend::Unknown => "trend not known yet".to_owned(),
        DiskTrend::NotFilling => "not filling".to_owned(),
        DiskTrend::FullIn(left) => format!("full in {} at this rate", span(left)),
    }
}

fn mebibytes(bytes: f64) -> String {
    format!("{:.0} MiB free", bytes / MEBIBYTE)
}

/// The overview.
pub(crate) fn overview(
    figures: &OverviewFigures,
    retention: Option<Duration>,
    backups: Option<&Path>,
) -> Markup {
    let main = html! {
        p.notice role="status" data-live="reading" { (figures.text("reading")) }
        p { "As of " (shown(figures, "at")) ". The server " (shown(figures, "ready")) "." }
        (levels(figures))
        (last_hour(figures))
        (server(figures))
        (refusals(figures))
        (pruning(retention))
        (backup(backups))
    };
    page("Overview", paths::OVERVIEW, &main)
}

/// A figure that live events bring again.
fn shown(figures: &OverviewFigures, name: &'static str) -> Markup {
    html! { span data-live=(name) { (figures.text(name)) } }
}

fn levels(figures: &OverviewFigures) -> Markup {
    let levels = [
        (Level::Healthy, "more than 8 packages"),
        (Level::Low, "3 to 8 packages"),
        (Level::Critical, "1 or 2 packages"),
        (Level::Empty, "no package, or never filled"),
    ];
    html! {
        section aria-labelledby="levels" {
            h2 id="levels" { "Pools" }
            ul.tiles {
                @for (level, meaning) in levels {
                    li class=(level.word()) {
                        a href=(address(paths::POOLS, &[("level", level.word())])) {
                            strong { (shown(figures, level.word())) } " " (level.word())
                        }
                        small { (meaning) }
                    }
                }
            }
        }
    }
}

fn last_hour(figures: &OverviewFigures) -> Markup {
    type Count = fn(&MinuteCounts) -> u64;
    let rows: [(&str, Count); 4] = [
        ("reservations made", |minute| minute.reserved),
        ("packages spent", |minute| minute.spent),
        ("reservations lapsed", |minute| minute.lapsed),
        ("conflicts (late spends refused)", |minute| minute.conflicts),
    ];
    html! {
        section aria-labelledby="hour" {
            h2 id="hour" { "The last hour" }
            p {
                "Open reservations: " (shown(figures, "open")) ". Lapsed in the last hour: " (shown(figures, "lapsed"))
                ". Late spends refused (conflicts): " (shown(figures, "conflicts")) "."
            }
            dl.sparks {
                @for (name, count) in rows {
                    @let counts: Vec<u64> = figures.last_hour.iter().map(count).collect();
                    @let sum: u64 = counts.iter().sum();
                    dt { (name) }
                    dd { (sparkline(&format!("{sum} {name} in the 60 minutes before {}", time(figures.at)), &counts)) " " (sum) }
                }
            }
        }
    }
}

fn server(figures: &OverviewFigures) -> Markup {
    let rows = [
        ("last record of the log", "position"),
        ("covered by a checkpoint, up to record", "checkpoint"),
        ("compared by the scrub, up to record", "scrub"),
        ("commands waiting for the log", "queue"),
        ("connections", "connections"),
        ("open streams", "streams"),
        ("waiting mailbox reads", "polls"),
        ("requests since the start", "requests"),
    ];
    html! {
        section aria-labelledby="server" {
            h2 id="server" { "The server" }
            dl.figures {
                dt { "disk of the log" }
                dd { (shown(figures, "free")) ", " (shown(figures, "full")) }
                @for (name, figure) in rows { dt { (name) } dd { (shown(figures, figure)) } }
            }
        }
    }
}

/// The pruning of the log; nothing where none leaves it.
fn pruning(retention: Option<Duration>) -> Markup {
    html! {
        @if let Some(retention) = retention {
            section aria-labelledby="pruning" {
                h2 id="pruning" { "Pruning" }
                p { "Payloads leave the log when they have been over for " (span(retention)) "." }
                (action_button(&Action::Prune))
            }
        }
    }
}

/// The backups; nothing where the server has no directory for them.
fn backup(backups: Option<&Path>) -> Markup {
    html! {
        @if let Some(dir) = backups {
            section aria-labelledby="backup" {
                h2 id="backup" { "Backup" }
                p { "A backup is a new folder of " code { (one_line(&dir.display().to_string())) } " on the server's machine." }
                (action_button(&Action::BackUp))
            }
        }
    }
}

fn refusals(figures: &OverviewFigures) -> Markup {
    html! {
        section aria-labelledby="refusals" {
            h2 id="refusals" { "Refusals since the start" }
            @if figures.refusals.is_empty() {
                p { "No request was refused." }
            } @else {
                div.scroll tabindex="0" role="region" aria-label="Table of refusals" {
                    table {
                        thead { tr { th scope="col" { "code" } th.number scope="col" { "requests" } } }
                        tbody {
                            @for (code, count) in &figures.refusals {
                                tr { td { code { (one_line(code)) } } td.number { (count) } }
                            }
                        }
                    }
                }
            }
        }
    }
}
