//! Opening sources, showing how far one is, and moments of a log.

use std::{
    io::{self, IsTerminal},
    ops::ControlFlow,
    path::Path,
    str::FromStr,
    time::Duration,
};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use keypool_auditor::source::{Source, SourceEnd};
use keypool_ledger::{EventEnvelope, RawRecord, Timestamp};

use crate::{
    output::ToolError,
    times::{self, TimeError},
};

/// How many bytes a source has at least for a bar to be worth it: about a second's work.
const LONG_BYTES: u64 = 128 << 20;

/// A record's number or a time.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Moment {
    /// After this record.
    Seq(u64),
    /// After all that was recorded up to this time.
    Time(Timestamp),
}

impl Moment {
    /// Whether a record had been written by then.
    pub(crate) fn covers(self, seq: u64, at: Timestamp) -> bool {
        match self {
            Self::Seq(last) => seq <= last,
            Self::Time(last) => at <= last,
        }
    }
}

impl FromStr for Moment {
    type Err = TimeError;

    fn from_str(text: &str) -> Result<Self, TimeError> {
        text.parse().map(Self::Seq).or_else(|_| times::parse_now(text).map(Self::Time))
    }
}

/// A bar on the error stream, for long work that somebody watches.
pub(crate) struct ProgressMeter(ProgressBar);

impl ProgressMeter {
    pub(crate) fn of(source: &Source) -> Self {
        let bytes = source.bytes();
        if bytes < LONG_BYTES || !io::stderr().is_terminal() {
            return Self(ProgressBar::hidden());
        }
        let bar = ProgressBar::with_draw_target(Some(bytes), ProgressDrawTarget::stderr());
        let style = ProgressStyle::with_template("{wide_bar} {percent:>3} %  {eta} left");
        if let Ok(style) = style {
            bar.set_style(style);
        }
        bar.enable_steady_tick(Duration::from_millis(250));
        Self(bar)
    }

    pub(crate) fn pass(&self, bytes: u64) {
        if !self.0.is_hidden() {
            self.0.inc(bytes);
        }
    }
}

impl Drop for ProgressMeter {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}

/// Reads all records of a source, decoded.
pub(crate) fn read(
    path: &Path,
    visit: &mut dyn FnMut(RawRecord<'_>, EventEnvelope) -> ControlFlow<()>,
) -> Result<SourceEnd, ToolError> {
    read_after(&Source::open(path)?, 0, visit)
}

fn read_after(
    source: &Source,
    after: u64,
    visit: &mut dyn FnMut(RawRecord<'_>, EventEnvelope) -> ControlFlow<()>,
) -> Result<SourceEnd, ToolError> {
    let progress = ProgressMeter::of(source);
    let end = source.read_after(after, &mut |raw, envelope| {
        progress.pass((8 + raw.envelope_bytes.len() + raw.payload.len()) as u64);
        visit(raw, envelope)
    })?;
    Ok(end)
}

/// Reads all records of a source and stops at the first error that `visit` returns.
pub(crate) fn try_read(
    path: &Path,
    visit: &mut dyn FnMut(RawRecord<'_>, EventEnvelope) -> Result<(), ToolError>,
) -> Result<SourceEnd, ToolError> {
    try_read_after(&Source::open(path)?, 0, visit)
}

/// As [`try_read`], with the records after a position only.
pub(crate) fn try_read_after(
    source: &Source,
    after: u64,
    visit: &mut dyn FnMut(RawRecord<'_>, EventEnvelope) -> Result<(), ToolError>,
) -> Result<SourceEnd, ToolError> {
    let mut failure = None;
    let end = read_after(source, after, &mut |raw, envelope| match visit(raw, envelope) {
        Ok(()) => ControlFlow::Continue(()),
        Err(error) => {
            failure = Some(error);
            ControlFlow::Break(())
        }
    })?;
    failure.map_or(Ok(end), Err)
}
