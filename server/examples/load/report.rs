//! The page: the results, as they stand in docs/benchmarks.md between two marks.

use std::{fmt::Write, fs, path::Path};

use crate::{
    Outcome,
    baseline::Kind,
    goals::{self, Goal, Wanted},
    large::Large,
    machine::Machine,
    measure::{Spread, approx},
    request::Auth,
    rounds::{CONCURRENCIES, Key, Round, spread},
    session::Figures,
    subject::Subject,
    workload::Workload,
};

const BEGIN: &str = "<!-- Made by `just bench`, from here -->";
const END: &str = "<!-- to here -->";
const FIRST: [&str; 2] =
    ["<!-- The first table, made by `just bench` -->", "<!-- the first table ends -->"];
const HEAD: &str = "| load | at | operations/s | p50 ms | p99 ms | p99.9 ms | server CPU | client CPU | KiB written |
|---|---|---|---|---|---|---|---|---|
";

const AUTHS: [(Auth, &str); 2] =
    [(Auth::Named, "With `--insecure-no-auth`"), (Auth::Signed, "With signed requests")];

/// The results of a run.
pub(crate) struct Report<'a> {
    pub(crate) machine: &'a Machine,
    pub(crate) rounds: &'a [Round],
    pub(crate) large: Option<&'a Large>,
    /// The subjects that could not be measured, and why.
    pub(crate) missing: &'a [String],
}

/// Puts a report into a page, in place of the one before.
pub(crate) fn put_into(page: &Path, report: &Report<'_>) -> Outcome<()> {
    let mut text = fs::read_to_string(page)?;
    for ([begin, end], made) in [(FIRST, report.first_table()?), ([BEGIN, END], report.text()?)] {
        let wrong = || format!("{} has no {begin} … {end}", page.display());
        let (before, rest) = text.split_once(begin).ok_or_else(wrong)?;
        let (_, after) = rest.split_once(end).ok_or_else(wrong)?;
        text = format!("{before}{begin}\n\n{made}\n{end}{after}");
    }
    Ok(fs::write(page, text)?)
}

/// A subject, for a reader who knows none of them.
const fn told(subject: Subject) -> &'static str {
    match subject {
        Subject::Keypool => "**keypool**",
        Subject::Cluster => "three keypools over NATS, on one machine",
        Subject::Baseline(Kind::Echo) => "no log at all: made-up answers",
        Subject::Baseline(Kind::FsyncFile) => "one file, forced to the disk",
        Subject::Baseline(Kind::Sqlite) => "a table in SQLite",
        Subject::Baseline(Kind::Postgres) => "a table in PostgreSQL 15",
        Subject::Baseline(Kind::Redis) => "Redis 7, forced to the disk",
    }
}

impl Report<'_> {
    pub(crate) fn text(&self) -> Outcome<String> {
        let mut text = format!("{}\n", self.machine.text(self.rounds.len()));
        for line in self.missing {
            writeln!(text, "\n{line}.")?;
        }
        text += "\n### Goals\n\n";
        text += &goals_table(&goals::of_rounds(self.rounds))?;
        self.ceilings(&mut text)?;
        if let Some(large) = self.large {
            text += &large_text(large)?;
        }
        text += "\n### The server\n\n![Throughput of reserve over concurrency](benchmarks-throughput.svg)\n";
        for (auth, name) in AUTHS {
            writeln!(text, "\n{name}:\n")?;
            self.own_table(auth, &mut text)?;
        }
        text += "\n### Beside it\n\n![How long a reserve takes at 64](benchmarks-latency.svg)\n";
        for (auth, name) in AUTHS {
            writeln!(text, "\n{name}:\n")?;
            self.baselines_table(auth, &mut text)?;
        }
        Ok(text)
    }

    /// The table at the top of the page: a reservation by each subject, alone and among 64.
    fn first_table(&self) -> Outcome<String> {
        let mut text = "| a package is handed out by | alone, ms | 64 at once, a second | the same with signatures |\n\
                        |---|---|---|---|\n"
            .to_owned();
        for subject in Subject::ALL {
            let of = |auth, concurrency, figure: fn(&Figures) -> f64| {
                let key = Key { subject, auth, workload: Workload::Reserve, concurrency };
                let found = spread(self.rounds, |round| round.of(key).map(figure));
                found.map_or_else(|| "–".to_owned(), |found| rounded(found.median))
            };
            let alone = of(Auth::Named, 1, Figures::p50_ms);
            let many = of(Auth::Named, 64, |found| found.throughput);
            let signed = of(Auth::Signed, 64, |found| found.throughput);
            writeln!(text, "| {} | {alone} | {many} | {signed} |", told(subject))?;
        }
        Ok(text)
    }

    fn ceilings(&self, text: &mut String) -> Outcome<()> {
        let forced = self.rounds.iter().flat_map(|round| round.fdatasync_ms.values().copied());
        let fdatasync = Spread::of(forced);
        let admissions = spread(self.rounds, |round| Some(round.admissions));
        writeln!(
            text,
            "\nOne `fdatasync` of 400 bytes: {} ms. Admission alone: {} packages/s.",
            shown(fdatasync),
            shown(admissions)
        )?;
        Ok(())
    }

    fn own_table(&self, auth: Auth, text: &mut String) -> Outcome<()> {
        text.push_str(HEAD);
        for workload in Workload::ALL {
            for concurrency in CONCURRENCIES {
                let key = Key { subject: Subject::Keypool, auth, workload, concurrency };
                self.line(key, workload.name(), text)?;
            }
        }
        Ok(())
    }

    fn baselines_table(&self, auth: Auth, text: &mut String) -> Outcome<()> {
        text.push_str(HEAD);
        for workload in Workload::ALL {
            for subject in Subject::ALL {
                if subject == Subject::Keypool {
                    continue;
                }
                for concurrency in CONCURRENCIES {
                    let key = Key { subject, auth, workload, concurrency };
                    let name = format!("{}, {}", workload.name(), subject.name());
                    self.line(key, &name, text)?;
                }
            }
        }
        Ok(())
    }

    /// The line of a measurement, if it was made.
    fn line(&self, key: Key, name: &str, text: &mut String) -> Outcome<()> {
        let of =
            |figure: fn(&Figures) -> f64| spread(self.rounds, |round| round.of(key).map(figure));
        let Some(throughput) = of(|found| found.throughput) else { return Ok(()) };
        let written = spread(self.rounds, |round| Some(round.of(key)?.written? / 1024.0));
        let median = |figure| rounded(of(figure).unwrap_or_default().median);
        writeln!(
            text,
            "| {name} | {} | {} | {} | {} | {} | {} | {} | {} |",
            key.concurrency,
            shown(Some(throughput)),
            median(Figures::p50_ms),
            median(Figures::p99_ms),
            median(Figures::p999_ms),
            median(|found| found.subject_cpu),
            median(|found| found.client_cpu),
            rounded(written.map_or(f64::NAN, |found| found.least)),
        )?;
        Ok(())
    }
}

fn goals_table(goals: &[Goal]) -> Outcome<String> {
    let mut text = "| | goal | no auth | | signed | |\n|---|---|---|---|---|---|\n".to_owned();
    for goal in goals {
        let Goal { text: name, wanted, unit, named, signed } = goal;
        let wanted_text = match wanted {
            Wanted::AtLeast(least) => format!("≥ {least}{unit}"),
            Wanted::AtMost(most) => format!("≤ {most}{unit}"),
            Wanted::Told => "–".to_owned(),
        };
        let of = |found: Option<Spread>| match found {
            Some(spread) => {
                format!("{} | {}", shown(Some(spread)), verdict(*wanted, spread.median))
            }
            None => "| ".to_owned(),
        };
        let found = [*named, *signed].map(of);
        writeln!(text, "| {name} | {wanted_text} | {} |", found.join(" | "))?;
    }
    Ok(text)
}

fn verdict(wanted: Wanted, median: f64) -> &'static str {
    match wanted.holds(median) {
        Some(true) => "holds",
        Some(false) => "**does not hold**",
        None => "",
    }
}

/// The results of a large log.
pub(crate) fn large_text(large: &Large) -> Outcome<String> {
    let mut text = String::new();
    let Large { size, written, first_start_s, disk, memory, .. } = large;
    writeln!(
        text,
        "\n### A large log\n\n{} events of {} pools with 32 packages each; {} of the events are of one pool.\n",
        written.events, size.pools, size.one_pool_events
    )?;
    if !goals::is_large_enough(large) {
        let (events, pools) = (goals::EVENTS, goals::POOLS);
        writeln!(
            text,
            "The goals are for {events} events and {pools} pools: nothing is said of them here.\n"
        )?;
    }
    text += &goals_table(&goals::of_large(large))?;
    let mib = |bytes: u64| rounded(approx(bytes) / f64::from(1 << 20));
    writeln!(
        text,
        "\nThe first start, which makes the database, took {} s. The records have {} MiB and take {} MiB on \
         the disk. Memory: {} MiB with an empty log, {} MiB after the start, which is {} bytes for each pool \
         with its packages, and {} MiB when {} pools had been looked into.",
        rounded(*first_start_s),
        mib(written.bytes),
        mib(*disk),
        mib(memory.empty),
        mib(memory.started),
        rounded(approx(memory.started.saturating_sub(memory.empty)) / approx(size.pools)),
        mib(memory.touched),
        memory.touched_pools,
    )?;
    Ok(text)
}

/// A median, with the least and the greatest behind it where they are told apart.
pub(crate) fn shown(found: Option<Spread>) -> String {
    let Some(Spread { median, least, most }) = found else { return "–".to_owned() };
    let (middle, low, high) = (rounded(median), rounded(least), rounded(most));
    if low == high { middle } else { format!("{middle} ({low} to {high})") }
}

/// A figure with three digits that say something.
pub(crate) fn rounded(value: f64) -> String {
    let digits = match value {
        value if value.is_nan() => return "–".to_owned(),
        value if 100.0 <= value => 0,
        value if 10.0 <= value => 1,
        value if 1.0 <= value => 2,
        _ => 3,
    };
    format!("{value:.digits$}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_goal_is_told_with_whether_it_holds() {
        let spread = |median| Some(Spread { median, least: median - 0.1, most: median + 0.1 });
        let goal = |wanted, named, signed| Goal {
            text: "a ratio".to_owned(),
            wanted,
            unit: "×",
            named,
            signed,
        };
        let goals = [
            goal(Wanted::AtLeast(0.8), spread(0.8), spread(0.79)),
            goal(Wanted::AtMost(1.3), spread(1.3), spread(1.31)),
            goal(Wanted::Told, None, spread(123.0)),
        ];
        insta::assert_snapshot!(goals_table(&goals).unwrap(), @r"
        | | goal | no auth | | signed | |
        |---|---|---|---|---|---|
        | a ratio | ≥ 0.8× | 0.800 (0.700 to 0.900) | holds | 0.790 (0.690 to 0.890) | **does not hold** |
        | a ratio | ≤ 1.3× | 1.30 (1.20 to 1.40) | holds | 1.31 (1.21 to 1.41) | **does not hold** |
        | a ratio | – | |  | 123 |  |
        ");
    }

    #[test]
    fn a_figure_has_three_digits_that_say_something() {
        let told = [0.01234, 1.234, 12.34, 123.4, 12345.6, f64::NAN].map(rounded);
        assert_eq!(told, ["0.012", "1.23", "12.3", "123", "12346", "–"]);
    }
}
