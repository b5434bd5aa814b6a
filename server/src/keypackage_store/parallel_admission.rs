//! Admission on all cores at once: each thread takes the next package that no other has taken.

use std::{
    num::NonZero,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
};

use actix_rt::task::{JoinHandle, spawn_blocking};
use keypool_ledger::Timestamp;
use keypool_projections::NewPackage;

use crate::admission::{AdmissionError, AdmissionRules, Owner, admit};

/// The result of checking a package.
pub(super) type Checked = Result<NewPackage, AdmissionError>;

/// Packages to check, and the context to check them in.
#[derive(Debug)]
pub(super) struct AdmissionBatch {
    pub(super) packages: Vec<Vec<u8>>,
    pub(super) owner: Owner,
    pub(super) now: Timestamp,
    pub(super) rules: AdmissionRules,
}

/// A batch under way.
struct BatchProgress {
    batch: AdmissionBatch,
    next: AtomicUsize,
}

/// The results of one thread, each with its place, and the thread that it began before.
struct CheckedPart {
    judged: Vec<(usize, Checked)>,
    other: Option<JoinHandle<Self>>,
}

/// Checks packages on threads that may compute for long, as many as there are cores, and returns the
/// results in their order. `None` if a thread was stopped before it was done.
pub(super) async fn check_all(batch: AdmissionBatch) -> Option<Vec<Checked>> {
    let threads = thread::available_parallelism().map_or(1, NonZero::get);
    let threads = threads.min(batch.packages.len());
    let progress = Arc::new(BatchProgress { batch, next: AtomicUsize::new(0) });
    let mut all = Vec::new();
    let mut under_way = Some(spawn_blocking(move || check_part(&progress, threads)));
    while let Some(thread) = under_way {
        let CheckedPart { judged, other } = thread.await.ok()?;
        all.extend(judged);
        under_way = other;
    }
    all.sort_unstable_by_key(|(place, _)| *place);
    Some(all.into_iter().map(|(_, judgement)| judgement).collect())
}

/// Takes part with so many threads, this one included.
///
/// Each begins the next: a thread that begins another may have to give it the core, and would then begin
/// the others when it is done.
fn check_part(progress: &Arc<BatchProgress>, threads: usize) -> CheckedPart {
    let other = (1 < threads).then(|| {
        let progress = Arc::clone(progress);
        spawn_blocking(move || check_part(&progress, threads - 1))
    });
    let AdmissionBatch { packages, owner, now, rules } = &progress.batch;
    let mut judged = Vec::new();
    loop {
        let place = progress.next.fetch_add(1, Ordering::Relaxed);
        let Some(bytes) = packages.get(place) else { return CheckedPart { judged, other } };
        judged.push((place, admit(bytes, owner, *now, rules)));
    }
}
