//! `plot`: a pool's life as a picture: how many packages stand where, and who held which.

use std::{collections::BTreeMap, fmt::Write as _, fs, ops::ControlFlow, path::Path};

use keypool_ledger::{
    Event, EventEnvelope, KeyPackageRef, PoolId, ReleaseReason, ReservationId, StreamId, Timestamp,
};
use keypool_projections::{Counts, PoolState};
use serde_json::json;

use crate::{
    FINE,
    input::read,
    output::{Out, ToolError, short, time},
    replay::unknown,
};

/// The width of the picture and of its margins, in pixels.
const WIDTH: f64 = 1000.0;
const LEFT: f64 = 96.0;
const RIGHT: f64 = 24.0;
/// The place of the counts and their height, in pixels.
const TOP: f64 = 72.0;
const HEIGHT: f64 = 220.0;
/// How high the row of a package is, in pixels.
const ROW: f64 = 18.0;
/// How many packages have a row: the ones that were reserved last.
const ROWS_MAX: usize = 60;
/// A line of the counts: its name, its colour, and which count it is.
type Series = (&'static str, &'static str, fn(&Counts) -> u64);
/// The drawing of the counts.
const SERIES: [Series; 5] = [
    ("available", "#2e7d32", |counts| counts.available),
    ("reserved", "#f9a825", |counts| counts.reserved),
    ("spent", "#1565c0", |counts| counts.spent),
    ("expired", "#757575", |counts| counts.expired),
    ("revoked", "#8e24aa", |counts| counts.revoked),
];

/// A reservation as it is drawn.
struct Bar {
    of: KeyPackageRef,
    holder: PoolId,
    begin: Timestamp,
    deadline: Timestamp,
    end: Option<(Timestamp, ReservationEnd)>,
}

/// How a reservation ended.
#[derive(Clone, Copy)]
enum ReservationEnd {
    Spent,
    GivenBack,
    Lapsed,
}

/// A pool's life, ready to be drawn.
#[derive(Default)]
struct Life {
    counts: Vec<(Timestamp, Counts)>,
    bars: BTreeMap<(Timestamp, ReservationId), Bar>,
    begun: BTreeMap<ReservationId, Timestamp>,
    conflicts: Vec<(Timestamp, KeyPackageRef, ReservationId)>,
}

/// Draws a pool's life.
pub(crate) fn plot(
    path: &Path,
    pool: &PoolId,
    file: &Path,
    out: &mut Out,
) -> Result<u8, ToolError> {
    let (mut life, mut state) = (Life::default(), PoolState::default());
    let wanted = StreamId::Pool(pool.clone());
    read(path, &mut |_, envelope| {
        // An event that the fold refuses changes no count; `audit` speaks of it.
        if envelope.stream == wanted && state.evolve(&envelope.event, envelope.at).is_ok() {
            life.counts.push((envelope.at, state.counts()));
            life.take_in(&envelope);
        }
        ControlFlow::Continue(())
    })?;
    if life.counts.is_empty() {
        return Err(unknown(pool));
    }
    fs::write(file, life.draw(pool)).map_err(ToolError::file(file))?;
    let (events, bars) = (life.counts.len(), life.bars.len());
    out.say(
        || format!("{events} events and {bars} reservations of {pool} drawn in {}", file.display()),
        || json!({ "events": events, "reservations": bars, "file": file }),
    )?;
    Ok(FINE)
}

impl Life {
    fn take_in(&mut self, envelope: &EventEnvelope) {
        let at = envelope.at;
        match &envelope.event {
            Event::Reserved { keypackage_ref, reservation, holder, deadline, .. } => {
                let (of, holder) = (keypackage_ref.clone(), holder.clone());
                self.begun.insert(*reservation, at);
                let bar = Bar { of, holder, begin: at, deadline: *deadline, end: None };
                self.bars.insert((at, *reservation), bar);
            }
            Event::Renewed { reservation, deadline, .. } => {
                let begun = self.begun.get(reservation).copied().unwrap_or_default();
                if let Some(bar) = self.bars.get_mut(&(begun, *reservation)) {
                    bar.deadline = *deadline;
                }
            }
            Event::Released { reservation, reason, .. } => {
                let end = match reason {
                    ReleaseReason::Cancelled => ReservationEnd::GivenBack,
                    ReleaseReason::Lapsed => ReservationEnd::Lapsed,
                };
                self.end(*reservation, at, end);
            }
            Event::Spent { reservation: Some(reservation), .. } => {
                self.end(*reservation, at, ReservationEnd::Spent);
            }
            Event::Conflict { keypackage_ref, lost, .. } => {
                self.conflicts.push((at, keypackage_ref.clone(), *lost));
            }
            _ => {}
        }
    }

    fn end(&mut self, id: ReservationId, at: Timestamp, end: ReservationEnd) {
        let begun = self.begun.get(&id).copied().unwrap_or_default();
        if let Some(bar) = self.bars.get_mut(&(begun, id)) {
            bar.end = Some((at, end));
        }
    }

    fn draw(&self, pool: &PoolId) -> String {
        let axis = Axis::over(&self.counts);
        let rows = self.rows();
        let bars_top = TOP + HEIGHT + 64.0;
        let height = bars_top + ROW * f64_of(rows.len().max(1)) + 56.0;
        let mut svg = String::new();
        let _ = write!(
            svg,
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height:.0}\" width=\"{WIDTH}\" \
             height=\"{height:.0}\" font-family=\"sans-serif\" font-size=\"12\">\n\
             <rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n\
             <text x=\"{LEFT}\" y=\"24\" font-size=\"16\" font-weight=\"bold\">{pool}</text>\n\
             <text x=\"{LEFT}\" y=\"42\" fill=\"#555\">{} to {}, {} events</text>\n",
            time(axis.begin),
            time(axis.end),
            self.counts.len()
        );
        self.draw_counts(&axis, &mut svg);
        axis.draw(TOP + HEIGHT, &mut svg);
        self.draw_bars(&axis, &rows, bars_top, &mut svg);
        svg.push_str("</svg>\n");
        svg
    }

    /// The packages that were ever reserved, each with its row.
    fn rows(&self) -> BTreeMap<&KeyPackageRef, usize> {
        let mut order: Vec<&KeyPackageRef> = Vec::new();
        for bar in self.bars.values() {
            if !order.contains(&&bar.of) && order.len() < ROWS_MAX {
                order.push(&bar.of);
            }
        }
        order.into_iter().enumerate().map(|(row, of)| (of, row)).collect()
    }

    /// The counts, one upon the other: together they are all packages that were ever uploaded.
    fn draw_counts(&self, axis: &Axis, svg: &mut String) {
        let steps = self.steps(axis);
        let all = |sums: &[u64; SERIES.len() + 1]| sums.last().copied().unwrap_or_default();
        let most = steps.iter().map(|(_, sums)| all(sums)).max().unwrap_or_default().max(1);
        let y = |count: u64| TOP + HEIGHT - HEIGHT * f64_of_u64(count) / f64_of_u64(most);
        for (n, (name, colour, _)) in SERIES.iter().enumerate() {
            let edge = |sums: &[u64; SERIES.len() + 1], n: usize| {
                y(sums.get(n).copied().unwrap_or_default())
            };
            let mut path = String::new();
            for (place, (x, sums)) in steps.iter().enumerate() {
                let letter = if place == 0 { format!("M{x:.1} ") } else { format!("H{x:.1}V") };
                let _ = write!(path, "{letter}{:.1}", edge(sums, n + 1));
            }
            let _ = write!(path, "H{:.1}", axis.x(axis.end));
            for (x, sums) in steps.iter().rev() {
                let _ = write!(path, "V{:.1}H{x:.1}", edge(sums, n));
            }
            let x = LEFT + 110.0 * f64_of(n);
            let _ = write!(
                svg,
                "<path d=\"{path}Z\" fill=\"{colour}\" fill-opacity=\"0.75\"/>\n\
                 <rect x=\"{x:.1}\" y=\"51\" width=\"12\" height=\"12\" fill=\"{colour}\"/>\n\
                 <text x=\"{:.1}\" y=\"61\">{name}</text>\n",
                x + 17.0
            );
        }
        let step = most.div_ceil(6);
        for count in (0..=most).step_by(usize::try_from(step).unwrap_or(usize::MAX)) {
            let (y, right) = (y(count), WIDTH - RIGHT);
            let _ = write!(
                svg,
                "<line x1=\"{LEFT}\" y1=\"{y:.1}\" x2=\"{right}\" y2=\"{y:.1}\" stroke=\"#000\" \
                 stroke-opacity=\"0.15\"/>\n\
                 <text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\" fill=\"#555\">{count}</text>\n",
                LEFT - 8.0,
                y + 4.0
            );
        }
    }

    /// The places where the counts change, from left to right, and how many packages are below each line:
    /// the last change in each tenth of a pixel.
    fn steps(&self, axis: &Axis) -> Vec<(f64, [u64; SERIES.len() + 1])> {
        let mut steps: Vec<(f64, [u64; SERIES.len() + 1])> = Vec::new();
        for (at, counts) in &self.counts {
            let mut sums = [0; SERIES.len() + 1];
            let mut below = 0;
            for (sum, (.., count)) in sums.iter_mut().skip(1).zip(SERIES) {
                below += count(counts);
                *sum = below;
            }
            let x = axis.x(*at);
            if steps.last().is_some_and(|(last, _)| x - last < 0.1) {
                steps.pop();
            }
            steps.push((x, sums));
        }
        steps
    }

    fn draw_bars(
        &self,
        axis: &Axis,
        rows: &BTreeMap<&KeyPackageRef, usize>,
        top: f64,
        svg: &mut String,
    ) {
        let y = |row: usize| top + ROW * f64_of(row);
        let _ = writeln!(
            svg,
            "<text x=\"{LEFT}\" y=\"{:.1}\" font-weight=\"bold\">reservations, by package</text>",
            top - 8.0
        );
        for (of, row) in rows {
            let (x, y) = (LEFT - 8.0, y(*row) + 12.0);
            let name = of.short();
            let _ = writeln!(
                svg,
                "<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"end\" font-family=\"monospace\" \
                 font-size=\"11\">{name}</text>"
            );
        }
        for ((_, id), bar) in &self.bars {
            if let Some(row) = rows.get(&bar.of) {
                draw_bar(axis, *id, bar, y(*row), svg);
            }
        }
        for (at, of, lost) in &self.conflicts {
            let Some(row) = rows.get(of) else { continue };
            let (x, y, id) = (axis.x(*at), y(*row) + ROW / 2.0, short(lost));
            let cross = format!("M{:.1} {:.1}l10 10m0 -10l-10 10", x - 5.0, y - 5.0);
            let _ = write!(
                svg,
                "<path d=\"{cross}\" stroke=\"white\" stroke-width=\"6\"/>\n\
                 <path d=\"{cross}\" stroke=\"#c62828\" stroke-width=\"3\">\
                 <title>conflict: {id} came too late</title></path>\n"
            );
        }
        draw_legend(y(rows.len().max(1)) + 24.0, svg);
    }
}

/// A reservation: full while it was to last, pale while nobody had recorded that it was over.
fn draw_bar(axis: &Axis, id: ReservationId, bar: &Bar, y: f64, svg: &mut String) {
    let begin = axis.x(bar.begin);
    let (end, colour, word) = match bar.end {
        Some((at, ReservationEnd::Spent)) => (at, "#1565c0", "spent"),
        Some((at, ReservationEnd::GivenBack)) => (at, "#2e7d32", "given back"),
        Some((at, ReservationEnd::Lapsed)) => (at, "#ef6c00", "lapsed"),
        None => (axis.end, "#f9a825", "open"),
    };
    let (end, holder, id) = (axis.x(end), &bar.holder, short(&id));
    let until = axis.x(bar.deadline).min(end);
    let parts = [(begin, (until - begin).max(2.0), "1"), (until, end - until, "0.3")];
    for (x, width, opacity) in parts.into_iter().filter(|(_, width, _)| 0.1 < *width) {
        let _ = writeln!(
            svg,
            "<rect x=\"{x:.1}\" y=\"{:.1}\" width=\"{width:.1}\" height=\"{:.1}\" rx=\"2\" \
             fill=\"{colour}\" fill-opacity=\"{opacity}\"><title>{holder}, {id}, {word}</title></rect>",
            y + 2.0,
            ROW - 4.0
        );
    }
    // A name is written where it fits.
    if 7.0 * f64_of(holder.to_string().len()) + 16.0 < end - begin {
        let (x, y) = (begin + 16.0, y + 13.0);
        let _ = writeln!(svg, "<text x=\"{x:.1}\" y=\"{y:.1}\" font-size=\"11\">{holder}</text>");
    }
}

/// The legend of the bars' colours.
fn draw_legend(y: f64, svg: &mut String) {
    let legend = [("spent", "#1565c0"), ("given back", "#2e7d32"), ("lapsed", "#ef6c00")];
    let legend = legend.into_iter().chain([("open", "#f9a825"), ("conflict", "#c62828")]);
    for (n, (word, colour)) in legend.enumerate() {
        let x = LEFT + 110.0 * f64_of(n);
        let _ = write!(
            svg,
            "<rect x=\"{x:.1}\" y=\"{:.1}\" width=\"12\" height=\"12\" fill=\"{colour}\"/>\n\
             <text x=\"{:.1}\" y=\"{y:.1}\">{word}</text>\n",
            y - 10.0,
            x + 17.0
        );
    }
}

/// The time from left to right.
struct Axis {
    begin: Timestamp,
    end: Timestamp,
}

impl Axis {
    fn over(counts: &[(Timestamp, Counts)]) -> Self {
        let begin = counts.first().map(|(at, _)| *at).unwrap_or_default();
        let end = counts.iter().map(|(at, _)| *at).max().unwrap_or(begin);
        // A twentieth more, so that what stands at the end can be seen.
        let more = end.since(begin) / 20;
        Self { begin, end: end.after(more.max(std::time::Duration::from_secs(1))) }
    }

    fn x(&self, at: Timestamp) -> f64 {
        let whole = self.end.since(self.begin).as_secs_f64();
        let part = at.since(self.begin).as_secs_f64();
        LEFT + (WIDTH - LEFT - RIGHT) * (part / whole).min(1.0)
    }

    fn draw(&self, y: f64, svg: &mut String) {
        let whole = self.end.since(self.begin);
        for part in 0..=4 {
            let at = self.begin.after(whole * part / 4);
            let x = self.x(at);
            let anchor = if part == 4 { "end" } else { "middle" };
            let clock = time(at);
            // The day is in the title: here a time of day, or for a long life the day.
            let long = whole.as_secs() > 172_800;
            let text = if long { clock.get(..10) } else { clock.get(11..19) };
            let text = text.unwrap_or(&clock);
            let _ = write!(
                svg,
                "<line x1=\"{x:.1}\" y1=\"{y:.1}\" x2=\"{x:.1}\" y2=\"{:.1}\" stroke=\"#555\"/>\n\
                 <text x=\"{x:.1}\" y=\"{:.1}\" text-anchor=\"{anchor}\" fill=\"#555\">{text}</text>\n",
                y + 5.0,
                y + 19.0
            );
        }
    }
}

/// A count as a number of pixels can be made of it.
fn f64_of(count: usize) -> f64 {
    f64_of_u64(count as u64)
}

fn f64_of_u64(count: u64) -> f64 {
    // Counts of packages: what is beyond 32 bits is drawn at the edge.
    f64::from(u32::try_from(count).unwrap_or(u32::MAX))
}
