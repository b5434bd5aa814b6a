//! The state of a cluster's stream, read in the background: a scrape never waits for the engine.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use actix_web::web;
use keypool_ledger::{Clock, Replication, StreamStatus};

/// Time between two looks at the stream.
const LOOK_INTERVAL: Duration = Duration::from_secs(5);
/// How long a look waits for the engine's answer.
const LOOK_WAIT: Duration = Duration::from_secs(2);

/// The last known state of the stream. It stays empty at a server that runs alone.
#[derive(Debug, Default)]
pub(crate) struct StreamWatch(Mutex<StreamLooks>);

/// The result of the looks so far.
#[derive(Debug, Default)]
struct StreamLooks {
    /// The last answer, and when it came by the monotonic clock.
    answer: Option<(StreamStatus, Duration)>,
    /// Whether the last look was answered.
    is_answered: bool,
    /// Whether there was a look.
    is_looked_at: bool,
}

/// The last known state of the stream at a moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct StreamReport {
    /// The last answer of the engine and its age; `None` if there was none since the start.
    pub(crate) known: Option<(StreamStatus, Duration)>,
    /// Whether the last look was answered, and the answer names a leader.
    pub(crate) has_leader: bool,
}

impl StreamWatch {
    /// Looks at the stream at an interval, and does not end.
    pub(crate) async fn look_on(&self, replication: Arc<dyn Replication>, clock: Arc<dyn Clock>) {
        loop {
            let asked = Arc::clone(&replication);
            let answer = web::block(move || asked.status(LOOK_WAIT)).await;
            self.note(answer.ok().and_then(Result::ok), clock.monotonic());
            actix_rt::time::sleep(LOOK_INTERVAL).await;
        }
    }

    /// Notes the answer of a look.
    fn note(&self, answer: Option<StreamStatus>, at: Duration) {
        let mut looks = self.looks();
        looks.is_looked_at = true;
        looks.is_answered = answer.is_some();
        let Some(status) = answer else { return };
        let lost_before = looks.answer.as_ref().map_or(0, |(known, _)| known.lost);
        if lost_before < status.lost {
            let StreamStatus { lost, last, leader, .. } = &status;
            tracing::error!(
                lost,
                last,
                leader,
                "the node that leads the stream has lost frames: replace no node's disk, and see the operator's guide"
            );
        }
        looks.answer = Some((status, at));
    }

    /// Reports the last known state at a moment of the monotonic clock; `None` before the first look.
    pub(crate) fn report(&self, now: Duration) -> Option<StreamReport> {
        let looks = self.looks();
        let known = looks.answer.as_ref();
        let is_led = known.is_some_and(|(status, _)| status.leader.is_some());
        looks.is_looked_at.then(|| StreamReport {
            known: known.map(|(status, at)| (status.clone(), now.saturating_sub(*at))),
            has_leader: looks.is_answered && is_led,
        })
    }

    fn looks(&self) -> MutexGuard<'_, StreamLooks> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl StreamReport {
    /// Lists the faults of the stream, each as a line for the operator; none while all is well.
    pub(crate) fn faults(&self) -> Vec<String> {
        let mut faults = Vec::new();
        if let Some((StreamStatus { lost, leader, current_replicas, replicas, .. }, _)) =
            &self.known
        {
            if 0 < *lost {
                let node = leader.as_deref().unwrap_or("its leader");
                faults.push(format!(
                    "the stream has lost {lost} frames on {node}: replace no node's disk, and have another node lead"
                ));
            }
            if self.has_leader && current_replicas < replicas {
                faults.push(format!(
                    "{current_replicas} of {replicas} copies of the stream are up to date: look at its other nodes"
                ));
            }
        }
        if !self.has_leader {
            let since = match &self.known {
                Some((_, age)) => format!(" for {} s", age.as_secs()),
                None => String::new(),
            };
            faults.push(format!(
                "no leader of the stream has answered{since}: writes wait until a majority of its nodes is back"
            ));
        }
        faults
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(lost: u64, current_replicas: usize, leader: Option<&str>) -> StreamStatus {
        let leader = leader.map(str::to_owned);
        StreamStatus { last: 9, lost, leader, current_replicas, replicas: 3 }
    }

    #[test]
    fn an_answer_is_kept_with_its_age_while_the_engine_is_away() {
        let (watch, secs) = (StreamWatch::default(), Duration::from_secs);
        assert_eq!(watch.report(secs(1)), None);
        watch.note(None, secs(2));
        let faults = watch.report(secs(2)).unwrap().faults();
        assert!(faults[0].starts_with("no leader of the stream has answered: "), "{faults:?}");
        watch.note(Some(status(0, 3, Some("n1"))), secs(10));
        let report = watch.report(secs(14)).unwrap();
        assert_eq!(report.known, Some((status(0, 3, Some("n1")), secs(4))));
        assert!(report.has_leader && report.faults().is_empty());
        watch.note(None, secs(15));
        let report = watch.report(secs(17)).unwrap();
        assert_eq!(report.known, Some((status(0, 3, Some("n1")), secs(7))));
        assert!(!report.has_leader);
        assert!(report.faults()[0].contains("has answered for 7 s"), "{:?}", report.faults());
    }

    #[test]
    fn each_fault_of_the_stream_is_a_line() {
        let faults = |status| {
            let watch = StreamWatch::default();
            watch.note(Some(status), Duration::ZERO);
            watch.report(Duration::ZERO).unwrap().faults()
        };
        let lost = faults(status(7, 2, Some("n1")));
        assert!(lost[0].starts_with("the stream has lost 7 frames on n1"), "{lost:?}");
        assert!(lost[1].starts_with("2 of 3 copies of the stream are up to date"), "{lost:?}");
        let elected = faults(status(0, 2, None));
        assert_eq!(elected.len(), 1, "{elected:?}");
        assert!(elected[0].starts_with("no leader of the stream"), "{elected:?}");
    }
}
