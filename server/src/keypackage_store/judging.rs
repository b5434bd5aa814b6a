//! Packages judged on all cores at once: each thread takes the next one that nobody has taken.

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

/// What a package is found to be.
pub(super) type Judgement = Result<NewPackage, AdmissionError>;

/// Packages that are to be judged, and by what.
#[derive(Debug)]
pub(super) struct Bench {
    pub(super) packages: Vec<Vec<u8>>,
    pub(super) owner: Owner,
    pub(super) now: Timestamp,
    pub(super) rules: AdmissionRules,
}

/// A bench at work.
struct Sitting {
    bench: Bench,
    next: AtomicUsize,
}

/// What one thread has judged, each with its place, and the thread that it began before.
struct Share {
    judged: Vec<(usize, Judgement)>,
    other: Option<JoinHandle<Self>>,
}

/// Judges packages on threads that may compute for long, as many as there are cores, and returns what each
/// is found to be, in their order. `None` if a thread was stopped before it was done.
pub(super) async fn judge(bench: Bench) -> Option<Vec<Judgement>> {
    let threads = thread::available_parallelism().map_or(1, NonZero::get);
    let threads = threads.min(bench.packages.len());
    let sitting = Arc::new(Sitting { bench, next: AtomicUsize::new(0) });
    let mut all = Vec::new();
    let mut under_way = Some(spawn_blocking(move || share(&sitting, threads)));
    while let Some(thread) = under_way {
        let Share { judged, other } = thread.await.ok()?;
        all.extend(judged);
        under_way = other;
    }
    all.sort_unstable_by_key(|(place, _)| *place);
    Some(all.into_iter().map(|(_, judgement)| judgement).collect())
}

/// Takes part with so many threads, this one included.
///
/// Each begins the next: whoever begins a thread may have to give it the core, and would then begin the
/// others when it is done.
fn share(sitting: &Arc<Sitting>, threads: usize) -> Share {
    let other = (1 < threads).then(|| {
        let sitting = Arc::clone(sitting);
        spawn_blocking(move || share(&sitting, threads - 1))
    });
    let Bench { packages, owner, now, rules } = &sitting.bench;
    let mut judged = Vec::new();
    loop {
        let place = sitting.next.fetch_add(1, Ordering::Relaxed);
        let Some(bytes) = packages.get(place) else { return Share { judged, other } };
        judged.push((place, admit(bytes, owner, *now, rules)));
    }
}
