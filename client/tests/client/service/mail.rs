//! A mail service in memory, which fails as planned.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
};

use keypool_client::{CommitPost, DeliveryError, DeliveryService, WelcomePost};
use keypool_ledger::{GroupId, PoolId};

use super::{Hook, Side};

/// The mail service's action on the next Commit or Welcome.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// None: it is taken.
    Taken,
    /// It is taken, and the answer is lost.
    TakenUnanswered,
    /// It is not taken, and the answer is lost.
    LostUnanswered,
    /// It is refused.
    Refused,
    /// Another Commit was first.
    EpochTaken,
}

/// A mail service in memory.
#[derive(Clone, Default)]
pub(crate) struct Mail(Arc<Mutex<Queues>>);

#[derive(Default)]
struct Queues {
    commits: HashMap<(GroupId, u64), Vec<u8>>,
    welcomes: HashMap<PoolId, Vec<Vec<u8>>>,
    commit_faults: Vec<Fault>,
    welcome_faults: Vec<Fault>,
    on_commit: Option<Hook>,
    /// How many Commits there were since the app's death was planned, and at which it dies.
    asked: usize,
    commit_kill: Option<(usize, Side, Hook)>,
    welcome_kill: Option<(Side, Hook)>,
}

impl std::fmt::Debug for Mail {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Mail")
    }
}

impl Mail {
    pub(crate) fn fail_commits(&self, faults: &[Fault]) {
        self.0.lock().unwrap().commit_faults = faults.to_vec();
    }

    pub(crate) fn fail_welcomes(&self, faults: &[Fault]) {
        self.0.lock().unwrap().welcome_faults = faults.to_vec();
    }

    /// Does something once, when the next Commit arrives, before it is taken.
    pub(crate) fn on_commit(&self, hook: impl FnOnce() + Send + 'static) {
        self.0.lock().unwrap().on_commit = Some(Box::new(hook));
    }

    pub(super) fn kill_at_commit(&self, number: usize, side: Side, hook: Hook) {
        let mut queues = self.0.lock().unwrap();
        queues.asked = 0;
        queues.commit_kill = Some((number, side, hook));
    }

    pub(super) fn kill_at_welcome(&self, side: Side, hook: Hook) {
        self.0.lock().unwrap().welcome_kill = Some((side, hook));
    }

    /// The Welcomes that wait for a device.
    pub(crate) fn welcomes(&self, name: &str) -> Vec<Vec<u8>> {
        let queues = self.0.lock().unwrap();
        queues.welcomes.get(&name.parse().unwrap()).cloned().unwrap_or_default()
    }

    /// The Commits of a group, in the order of their epochs.
    pub(crate) fn commits(&self, group: &GroupId) -> Vec<Vec<u8>> {
        let queues = self.0.lock().unwrap();
        let mut commits: Vec<_> =
            queues.commits.iter().filter(|((of, _), _)| of == group).collect();
        commits.sort_by_key(|((_, epoch), _)| *epoch);
        commits.into_iter().map(|(_, commit)| commit.clone()).collect()
    }

    /// Whether the app dies at the present Commit; and signals the test.
    fn dies_at_commit(&self, side: Side) -> bool {
        let mut queues = self.0.lock().unwrap();
        let number = queues.asked;
        let is_now = |kill: &mut (usize, Side, Hook)| (kill.0, kill.1) == (number, side);
        queues.commit_kill.take_if(is_now).map(|(_, _, hook)| hook()).is_some()
    }

    fn dies_at_welcome(&self, side: Side) -> bool {
        let mut queues = self.0.lock().unwrap();
        queues.welcome_kill.take_if(|kill| kill.0 == side).map(|(_, hook)| hook()).is_some()
    }
}

/// Takes something, or fails as planned.
fn take(faults: &mut Vec<Fault>, mut take: impl FnMut() -> bool) -> Result<(), DeliveryError> {
    let fault = if faults.is_empty() { Fault::Taken } else { faults.remove(0) };
    match fault {
        Fault::Taken if take() => Ok(()),
        Fault::Taken | Fault::EpochTaken => Err(DeliveryError::EpochTaken),
        Fault::TakenUnanswered => {
            assert!(take());
            Err(DeliveryError::Unanswered("the answer was lost".into()))
        }
        Fault::LostUnanswered => Err(DeliveryError::Unanswered("the request was lost".into())),
        Fault::Refused => Err(DeliveryError::Refused("not today".into())),
    }
}

impl DeliveryService for Mail {
    async fn post_commit(&self, post: &CommitPost) -> Result<Vec<PoolId>, DeliveryError> {
        let hook = self.0.lock().unwrap().on_commit.take();
        if let Some(hook) = hook {
            hook();
        }
        if self.dies_at_commit(Side::Before) {
            std::future::pending::<()>().await;
        }
        let taken = {
            let queues = &mut *self.0.lock().unwrap();
            take(&mut queues.commit_faults, || {
                let epoch = (post.group.clone(), post.epoch);
                *queues.commits.entry(epoch).or_insert_with(|| post.commit.clone()) == post.commit
            })
        };
        if self.dies_at_commit(Side::After) {
            std::future::pending::<()>().await;
        }
        self.0.lock().unwrap().asked += 1;
        taken.map(|()| Vec::new())
    }

    async fn send_welcome(&self, post: &WelcomePost) -> Result<(), DeliveryError> {
        if self.dies_at_welcome(Side::Before) {
            std::future::pending::<()>().await;
        }
        let taken = {
            let queues = &mut *self.0.lock().unwrap();
            take(&mut queues.welcome_faults, || {
                let waiting = queues.welcomes.entry(post.to.clone()).or_default();
                if !waiting.contains(&post.welcome) {
                    waiting.push(post.welcome.clone());
                }
                true
            })
        };
        if self.dies_at_welcome(Side::After) {
            std::future::pending::<()>().await;
        }
        taken
    }
}
