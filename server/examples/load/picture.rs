//! The pictures of the page, as SVG.

use std::{fmt::Write, fs, path::Path};

use crate::{
    Outcome,
    baseline::Kind,
    request::Auth,
    rounds::{CONCURRENCIES, Key, Round, spread},
    session::PARTS,
    subject::Subject,
    workload::Workload,
};

const WIDTH: f64 = 720.0;
const HEIGHT: f64 = 400.0;
const LEFT: f64 = 70.0;
const RIGHT: f64 = 130.0;
const TOP: f64 = 40.0;
const BOTTOM: f64 = 50.0;
/// How far the names of two lines are apart at least.
const NAME_GAP: f64 = 14.0;

/// Lines over places that have names; the values' axis is logarithmic.
struct Chart {
    title: String,
    places: Vec<String>,
    below: &'static str,
    lines: Vec<Line>,
}

struct Line {
    name: &'static str,
    colour: &'static str,
    values: Vec<f64>,
}

impl Line {
    fn end(&self) -> f64 {
        self.values.last().copied().unwrap_or(1.0)
    }
}

/// Draws the pictures into a directory.
pub(crate) fn draw(dir: &Path, rounds: &[Round]) -> Outcome<()> {
    fs::write(dir.join("benchmarks-throughput.svg"), throughput(rounds).svg()?)?;
    fs::write(dir.join("benchmarks-latency.svg"), latency(rounds).svg()?)?;
    Ok(())
}

fn throughput(rounds: &[Round]) -> Chart {
    let value = |subject, concurrency| {
        let key = Key { subject, auth: Auth::Named, workload: Workload::Reserve, concurrency };
        spread(rounds, |round| Some(round.of(key)?.throughput)).map(|found| found.median)
    };
    Chart {
        title: "reserve: operations in a second".to_owned(),
        places: CONCURRENCIES.map(|count| count.to_string()).to_vec(),
        below: "connections that ask at a time",
        lines: lines(|subject| CONCURRENCIES.map(|count| value(subject, count)).to_vec()),
    }
}

fn latency(rounds: &[Round]) -> Chart {
    let value = |subject, place| {
        let workload = Workload::Reserve;
        let key = Key { subject, auth: Auth::Named, workload, concurrency: 64 };
        spread(rounds, |round| round.of(key)?.latency_ms.get(place).copied())
            .map(|found| found.median)
    };
    let percent = |part: &usize| format!("{}.{} %", part / 10, part % 10).replace(".0", "");
    Chart {
        title: "reserve, 64 at a time: milliseconds within which so many are answered".to_owned(),
        places: PARTS.iter().map(percent).collect(),
        below: "of the requests",
        lines: lines(|subject| (0..PARTS.len()).map(|place| value(subject, place)).collect()),
    }
}

/// The lines of the subjects that were measured.
fn lines(values: impl Fn(Subject) -> Vec<Option<f64>>) -> Vec<Line> {
    let line = |subject: Subject| {
        let values: Option<Vec<f64>> = values(subject).into_iter().collect();
        Some(Line { name: subject.name(), colour: colour(subject), values: values? })
    };
    Subject::ALL.into_iter().filter_map(line).collect()
}

const fn colour(subject: Subject) -> &'static str {
    match subject {
        Subject::Keypool => "#c0392b",
        Subject::Cluster => "#27ae60",
        Subject::Baseline(Kind::Echo) => "#95a5a6",
        Subject::Baseline(Kind::FsyncFile) => "#2c3e50",
        Subject::Baseline(Kind::Sqlite) => "#2980b9",
        Subject::Baseline(Kind::Postgres) => "#8e44ad",
        Subject::Baseline(Kind::Redis) => "#d68910",
    }
}

impl Chart {
    fn svg(&self) -> Outcome<String> {
        let (low, high) = self.decades();
        let mut svg = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" \
             font-family=\"sans-serif\" font-size=\"12\">\n\
             <rect width=\"{WIDTH}\" height=\"{HEIGHT}\" fill=\"#ffffff\"/>\n\
             <text x=\"{LEFT}\" y=\"22\" font-size=\"14\">{}</text>\n",
            self.title
        );
        for decade in low..=high {
            let (value, y) = (10_f64.powi(decade), Self::y(10_f64.powi(decade), low, high));
            writeln!(
                svg,
                "<path d=\"M{LEFT} {y:.1}H{:.1}\" stroke=\"#dddddd\"/>\
                 <text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{value}</text>",
                WIDTH - RIGHT,
                LEFT - 8.0,
                y + 4.0
            )?;
        }
        for (place, name) in self.places.iter().enumerate() {
            let (x, y) = (self.x(place), HEIGHT - BOTTOM + 20.0);
            writeln!(svg, "<text x=\"{x:.1}\" y=\"{y}\" text-anchor=\"middle\">{name}</text>")?;
        }
        let (middle, foot) = (f64::midpoint(LEFT, WIDTH - RIGHT), HEIGHT - 10.0);
        writeln!(
            svg,
            "<text x=\"{middle}\" y=\"{foot}\" text-anchor=\"middle\">{}</text>",
            self.below
        )?;
        let mut lines: Vec<&Line> = self.lines.iter().collect();
        lines.sort_by(|one, other| other.end().total_cmp(&one.end()));
        let mut above = 0.0;
        for line in lines {
            // Names that would stand on each other are moved apart.
            let name_y = (Self::y(line.end(), low, high) + 4.0).max(above + NAME_GAP);
            self.draw(line, (low, high), name_y, &mut svg)?;
            above = name_y;
        }
        svg += "</svg>\n";
        Ok(svg)
    }

    fn draw(
        &self,
        line: &Line,
        (low, high): (i32, i32),
        name_y: f64,
        svg: &mut String,
    ) -> Outcome<()> {
        let point = |(place, value): (usize, &f64)| {
            format!("{:.1},{:.1}", self.x(place), Self::y(*value, low, high))
        };
        let points: Vec<String> = line.values.iter().enumerate().map(point).collect();
        let Line { name, colour, .. } = line;
        writeln!(
            svg,
            "<polyline points=\"{}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\"/>\
             <text x=\"{:.1}\" y=\"{:.1}\" fill=\"{colour}\">{name}</text>",
            points.join(" "),
            WIDTH - RIGHT + 8.0,
            name_y
        )?;
        Ok(())
    }

    /// The powers of ten that all values lie between.
    #[expect(clippy::cast_possible_truncation, reason = "a logarithm of a figure is small")]
    fn decades(&self) -> (i32, i32) {
        let values = self.lines.iter().flat_map(|line| line.values.iter().copied());
        let (mut low, mut high) = (f64::MAX, f64::MIN_POSITIVE);
        for value in values {
            (low, high) = (low.min(value), high.max(value));
        }
        let low = low.max(1e-6).log10().floor() as i32;
        (low, (high.max(1e-6).log10().ceil() as i32).max(low + 1))
    }

    fn x(&self, place: usize) -> f64 {
        let gaps = u32::try_from(self.places.len().saturating_sub(1)).unwrap_or(1).max(1);
        let place = u32::try_from(place).unwrap_or_default();
        let inner = WIDTH - RIGHT - LEFT - 40.0;
        LEFT + 20.0 + inner * f64::from(place) / f64::from(gaps)
    }

    fn y(value: f64, low: i32, high: i32) -> f64 {
        let part = (value.max(1e-6).log10() - f64::from(low)) / f64::from(high - low);
        HEIGHT - BOTTOM - part * (HEIGHT - BOTTOM - TOP)
    }
}
