//! Lines of the trace that operators act on: each is written when there is something to do, and once.

use std::{
    fmt,
    fs::{self, Permissions},
    os::unix::fs::PermissionsExt,
    sync::{Arc, Mutex},
};

use tempfile::TempDir;
use tracing::{
    Event, Metadata, Subscriber,
    field::{Field, Visit},
    span::{Attributes, Id, Record},
    subscriber::with_default,
};

use super::support::{fill, open};

/// Keeps the lines of the trace.
#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<String>>>);

/// One line: the message, and the fields with their names.
struct Line(String);

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        let Self(line) = self;
        *line = format!("{line} {field}={value:?}");
    }
}

impl Subscriber for Lines {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, event: &Event<'_>) {
        let mut line = Line(event.metadata().level().to_string());
        event.record(&mut line);
        self.0.lock().unwrap().push(line.0);
    }

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}

/// The lines that this thread writes to the trace while it does something.
pub(crate) fn traced(run: impl FnOnce()) -> Vec<String> {
    let lines = Lines::default();
    with_default(lines.clone(), run);
    lines.0.lock().unwrap().clone()
}

#[test]
fn a_directory_that_others_may_enter_is_told_with_its_mode() {
    for (mode, is_told) in [(0o700, false), (0o600, false), (0o750, true), (0o701, true)] {
        let dir = TempDir::new().unwrap();
        let data = dir.path().join("data");
        fs::create_dir(&data).unwrap();
        fs::set_permissions(&data, Permissions::from_mode(mode)).unwrap();
        let told = traced(|| drop(open(&data)));
        let told: Vec<_> = told.iter().filter(|line| line.contains("chmod it to 700")).collect();
        assert_eq!(told.len(), usize::from(is_told), "{mode:o}: {told:?}");
        let with_mode = |line: &&String| line.contains(&format!("mode=\"{mode:o}\""));
        assert!(told.iter().all(with_mode), "{mode:o}: {told:?}");
    }
}

#[test]
fn a_journal_with_records_and_no_note_of_them_is_told() {
    let dir = TempDir::new().unwrap();
    let note = dir.path().join("journal/acknowledged");
    let told_at_an_open = || {
        let lines = traced(|| drop(open(dir.path())));
        lines.iter().filter(|line| line.contains("not its note of what was acknowledged")).count()
    };
    assert_eq!(told_at_an_open(), 0, "a new log has nothing to note");
    fs::remove_file(&note).unwrap();
    assert_eq!(told_at_an_open(), 0, "nor has one without records");
    fill(&open(dir.path()), 3);
    assert_eq!(told_at_an_open(), 0);
    fs::remove_file(&note).unwrap();
    assert_eq!(told_at_an_open(), 1);
}
