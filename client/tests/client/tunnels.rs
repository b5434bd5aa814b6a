//! Every flow of the client through a tunnel that loses, repeats and delays: the same end each time.
//!
//! Each flow is played once undisturbed; its end is expected. Then each of its answers is lost
//! once, then twice, then so often that the call gives up and the app goes on as an app does; and every
//! request arrives twice; and every request is overtaken by its own repetition.

use std::time::Duration;

use keypool_client::{InviteError, MlsClient, PoolConfig};
use keypool_ledger::GroupId;

use super::{
    crowds::{self, Poison, with_dolls},
    drift::agrees,
    members::{self, Client, alice_and, members, they_talk},
    people::{alice_and_absent_bob, bob_joins_and_hears, counts, now, reserve_for},
    service::{Fault, Mail, Service, group, run},
};

/// How often a request is sent: once, and three times more.
const SENT_MAX: usize = 4;
/// How often an app retries after a lost answer.
const TRIES_MAX: usize = 3;

/// The tunnel's action on the requests of a flow.
#[derive(Clone, Copy, Debug)]
enum Trouble {
    None,
    /// Loses so many answers in a row, from one on.
    Lost {
        from: usize,
        count: usize,
    },
    AllTwice,
    /// The first of every two is overtaken by the second, which repeats it.
    EachLate,
}

/// Plays a flow. Returns how many requests it took, and how it ended.
async fn play<S>(
    trouble: Trouble,
    begin: &impl AsyncFn() -> (Service, S),
    go: &impl AsyncFn(&Service, &S),
    end: &impl AsyncFn(Service, S) -> String,
) -> (usize, String) {
    let (service, state) = begin().await;
    let before = service.tunnel.requests();
    match trouble {
        Trouble::None => {}
        Trouble::Lost { from, count } => {
            service.tunnel.lose(&(from..from + count).collect::<Vec<_>>());
        }
        Trouble::AllTwice => service.tunnel.repeat(&(0..64).collect::<Vec<_>>()),
        Trouble::EachLate => {
            service.tunnel.delay(&(0..64).step_by(2).collect::<Vec<_>>());
        }
    }
    let planned = service.tunnel.planned();
    go(&service, &state).await;
    let requests = service.tunnel.requests() - before;
    // At the end of a refresh one request more or less is sent, as the checkpoint is published or not.
    let may_be_missed = matches!(trouble, Trouble::None | Trouble::Lost { from: 1.., .. });
    assert!(may_be_missed || service.tunnel.planned() < planned, "{trouble:?}: never met");
    service.tunnel.forget_plans();
    // What was reserved and never answered lapses.
    service.clock.advance(Duration::from_secs(121));
    (requests, end(service, state).await)
}

/// Plays a flow with every trouble, and has it end alike.
#[expect(clippy::needless_pass_by_value, reason = "a flow is written as three closures in place")]
fn ends_alike<S>(
    begin: impl AsyncFn() -> (Service, S),
    go: impl AsyncFn(&Service, &S),
    end: impl AsyncFn(Service, S) -> String,
) {
    run(async {
        let (requests, expected) = play(Trouble::None, &begin, &go, &end).await;
        assert!(requests > 0, "nothing goes through the tunnel");
        let lost = (0..requests)
            .flat_map(|from| [1, 2, SENT_MAX].map(|count| Trouble::Lost { from, count }));
        for trouble in lost.chain([Trouble::AllTwice, Trouble::EachLate]) {
            let (_, ended) = play(trouble, &begin, &go, &end).await;
            assert_eq!(ended, expected, "{trouble:?}");
        }
    });
}

/// Does something until it succeeds, as an app does that is called again later.
async fn until<T, E: std::fmt::Debug>(does: impl AsyncFn() -> Result<T, E>) -> T {
    for _ in 0..TRIES_MAX {
        if let Ok(done) = does().await {
            return done;
        }
    }
    does().await.unwrap()
}

/// Invites, and goes on as an app does: with unfinished work, or from the start.
async fn invites(inviter: &MlsClient<Mail>, group: &GroupId, whom: &[&str]) {
    let outcome = inviter.invite(group, whom.iter().copied()).await;
    let Err(error) = outcome else { return };
    if !matches!(error, InviteError::Unfinished { .. }) {
        inviter.invite(group, whom.iter().copied()).await.unwrap();
        return;
    }
    until(async || {
        let mut resumed = inviter.resume_invitations().await.unwrap();
        assert_eq!(resumed.len(), 1);
        resumed.remove(0).outcome
    })
    .await;
}

fn open(service: &Service, name: &str) -> MlsClient<Mail> {
    let config = PoolConfig { target: 4, low_watermark: 1, ..PoolConfig::default() };
    service.open_at(&service.folder.path().join(name), name, config)
}

/// Both sides' counts of a pool, which must be the same.
async fn pool_of(service: &Service, device: &MlsClient<Mail>) -> String {
    agrees(service, device).await;
    let counts = device.status().await.unwrap().counts;
    let made = device.own_history(None).unwrap();
    let made = made.iter().filter(|moment| moment.event == "created").count();
    format!(
        "available {}, reserved {}, spent {}, revoked {}, uploaded {}, made {made}",
        counts.available, counts.reserved, counts.spent, counts.revoked, counts.total
    )
}

#[test]
fn a_registration() {
    ends_alike(
        async || {
            let service = Service::start();
            let bob = open(&service, "bob");
            (service, bob)
        },
        async |_, bob| drop(until(async || bob.register().await).await),
        async |service, bob| {
            until(async || bob.refresh_key_packages().await).await;
            pool_of(&service, &bob).await
        },
    );
}

#[test]
fn a_pool_that_is_filled() {
    ends_alike(
        async || {
            let service = Service::start();
            drop(service.device("bob", 0).await);
            let bob = open(&service, "bob");
            (service, bob)
        },
        async |service, bob| {
            drop(until(async || bob.connection().refresh_now(now(service)).await).await);
        },
        async |service, bob| pool_of(&service, &bob).await,
    );
}

/// Reserve, renew, spend.
#[test]
fn an_invitation_of_one() {
    ends_alike(
        async || {
            let service = Service::start();
            let alice = alice_and_absent_bob(&service, 2).await;
            (service, alice)
        },
        async |_, (alice, group)| invites(alice, group, &["bob"]).await,
        async |service, (alice, group)| {
            bob_joins_and_hears(&service, &alice, &group).await;
            let counts = counts(&service).await;
            let bob = open(&service, "bob");
            agrees(&service, &bob).await;
            format!("{counts:?}, {} Commits", service.mail.commits(&group).len())
        },
    );
}

#[test]
fn an_invitation_of_many() {
    ends_alike(
        async || {
            let service = Service::start();
            for name in ["bob", "carol", "dave"] {
                drop(service.device(name, 2).await);
            }
            let alice = service.device("alice", 0).await;
            let group = group("g");
            alice.create_group(&group).unwrap();
            (service, (alice, group))
        },
        async |_, (alice, group)| invites(alice, group, &["bob", "carol", "dave"]).await,
        async |service, (alice, group)| {
            let mut told = format!("{} members", alice.members(&group).unwrap().len());
            for name in ["bob", "carol", "dave"] {
                let device = open(&service, name);
                let welcomes = service.mail.welcomes(name);
                assert_eq!(welcomes.len(), 1, "{name}");
                device.join(&welcomes[0]).await.unwrap();
                told = format!("{told}; {}", counts_of(&service, &device).await);
            }
            told
        },
    );
}

async fn counts_of(service: &Service, device: &MlsClient<Mail>) -> String {
    let counts = device.status().await.unwrap().counts;
    agrees(service, device).await;
    format!("{} {} {}", counts.available, counts.reserved, counts.spent)
}

/// The Commit is refused, and the package given back.
#[test]
fn an_invitation_that_is_given_up() {
    ends_alike(
        async || {
            let service = Service::start();
            let alice = alice_and_absent_bob(&service, 2).await;
            service.mail.fail_commits(&[Fault::Refused, Fault::Refused]);
            (service, alice)
        },
        async |_, (alice, group)| {
            // Asked again, where nobody answered: until it is refused.
            for _ in 0..TRIES_MAX {
                let refused = alice.invite(group, ["bob"]).await.unwrap_err();
                if matches!(refused, InviteError::NotAccepted(_)) {
                    return;
                }
            }
            panic!("never refused");
        },
        async |service, (alice, group)| {
            assert!(alice.resume_invitations().await.unwrap().is_empty());
            let is_pending = alice.membership().has_pending_commit(&group).unwrap();
            format!("{:?} {is_pending}", counts(&service).await)
        },
    );
}

/// One package cannot be used: it is reported, and another takes its place.
#[test]
fn an_invitation_with_a_report() {
    ends_alike(
        async || {
            let poisoned = [Poison::Signature, Poison::Nothing, Poison::Nothing];
            let service = with_dolls(&[("bob", &poisoned[..])]).await;
            let alice = service.device("alice", 0).await;
            let group = group("g");
            alice.create_group(&group).unwrap();
            (service, (alice, group))
        },
        async |_, (alice, group)| invites(alice, group, &["bob"]).await,
        async |service, (alice, group)| {
            let members = alice.members(&group).unwrap().len();
            drop(alice);
            // Who gives up before the report leaves that to the next inviter.
            let (_, _, spent, _) = crowds::counts(service, "bob").await;
            format!("{members} members, spent {spent}")
        },
    );
}

#[test]
fn packages_that_are_withdrawn() {
    ends_alike(
        async || {
            let service = Service::start();
            drop(service.device("bob", 3).await);
            let bob = open(&service, "bob");
            reserve_for(&service.device("alice", 0).await, "g").await;
            (service, bob)
        },
        async |_, bob| {
            until(async || bob.invalidate_credential_keys().await).await;
        },
        async |service, bob| {
            until(async || bob.refresh_key_packages().await).await;
            pool_of(&service, &bob).await
        },
    );
}

#[test]
fn a_key_that_is_replaced() {
    ends_alike(
        async || {
            let service = Service::start();
            drop(service.device("bob", 3).await);
            let bob = open(&service, "bob");
            let key = bob.identity().signature_key();
            (service, (bob, key))
        },
        async |service, (bob, _)| {
            until(async || bob.rotate_key().await).await;
            until(async || bob.connection().refresh_now(now(service)).await).await;
        },
        async |service, (bob, key)| {
            let is_another = bob.identity().signature_key() != key;
            format!("{is_another}, {}", pool_of(&service, &bob).await)
        },
    );
}

/// The events, once the mailbox is empty.
async fn told(client: &Client) -> Vec<String> {
    until(async || client.sync(0).await.map(drop)).await;
    members::told(client).await
}

/// Over the server's delivery: the Commit, a message, the waiting items, and the acknowledgement.
#[test]
fn mail_both_ways() {
    ends_alike(
        async || {
            let service = Service::start();
            let (alice, group) = alice_and(&service, &["bob"], 2).await;
            let bob = members::open(&service, "bob");
            (service, (alice, bob, group))
        },
        async |_, (alice, bob, group)| {
            if alice.invite(group, ["bob"]).await.is_err() {
                until(async || match alice.resume_invitations().await.unwrap().pop() {
                    Some(resumed) => resumed.outcome.map(drop),
                    None => alice.invite(group, ["bob"]).await.map(drop),
                })
                .await;
            }
            sends(alice, group, b"hello").await;
            until(async || bob.sync(0).await.map(drop)).await;
            sends(bob, group, b"hello to you").await;
            until(async || alice.sync(0).await.map(drop)).await;
        },
        async |service, (alice, bob, group)| {
            let heard = [told(&alice).await, told(&bob).await].concat();
            they_talk(&alice, &bob, &group).await;
            let counts = bob.status().await.unwrap().counts;
            drop(bob);
            agrees(&service, &open(&service, "bob")).await;
            let (available, reserved) = (counts.available, counts.reserved);
            format!("{heard:?}, {available} {reserved} {}", counts.spent)
        },
    );
}

/// Sends a message; one whose answer was lost waits in the outbox.
async fn sends(speaker: &Client, group: &GroupId, message: &[u8]) {
    if speaker.send(group, message).await.is_err() {
        posts_what_is_left(speaker).await;
    }
}

async fn posts_what_is_left(speaker: &Client) {
    until(async || match speaker.resume_outbox().await.unwrap().pop() {
        Some(resumed) => resumed.outcome.map(drop),
        None => Ok(()),
    })
    .await;
}

#[test]
fn somebody_who_leaves() {
    ends_alike(
        async || {
            let service = Service::start();
            let state = members::alice_and_bob(&service).await;
            (service, state)
        },
        async |_, (alice, bob, group)| {
            if bob.leave(group).await.is_err() {
                posts_what_is_left(bob).await;
            }
            until(async || alice.sync(0).await.map(drop)).await;
            until(async || alice.take_up_proposals(group).await).await;
            until(async || bob.sync(0).await.map(drop)).await;
            until(async || bob.resume_leaving().await).await;
        },
        async |_, (alice, bob, group)| {
            let heard = [told(&alice).await, told(&bob).await].concat();
            let is_leaving = !bob.membership().leaving().unwrap().is_empty();
            format!("{heard:?}, {:?}, {is_leaving}", members(&alice, &group))
        },
    );
}

#[test]
fn keys_that_are_updated() {
    ends_alike(
        async || {
            let service = Service::start();
            let state = members::alice_and_bob(&service).await;
            (service, state)
        },
        async |_, (_, bob, group)| {
            if bob.update_keys(group).await.is_err() {
                until(async || match bob.resume_updates().await.unwrap().pop() {
                    Some(resumed) => resumed.outcome,
                    None => Ok(()),
                })
                .await;
            }
        },
        async |_, (alice, bob, group)| {
            let heard = [told(&alice).await, told(&bob).await].concat();
            they_talk(&alice, &bob, &group).await;
            format!("{heard:?}, epoch {}", alice.membership().epoch(&group).unwrap())
        },
    );
}
