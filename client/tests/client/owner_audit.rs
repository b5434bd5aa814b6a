//! The owner's own audit at the real server: an honest one is never accused, a lying one is found out.

use std::time::Duration;

use keypool_api::{Base64, EventView, EventsReply};
use keypool_client::{AuditFinding, EvidenceKind, MlsClient, OwnerAudit, Severity};
use keypool_ledger::{Event, EventEnvelope, PoolId, ReleaseReason, ReservationId, codec};
use keypool_transparency::{NoteKey, NoteSigner, SignedArtifact};
use uuid::Uuid;

use super::{
    people::{alice_and_absent_bob, be_overtaken, now, published_to},
    service::{Mail, Service, group, run},
    support::in_a_minute,
};

const DAY: Duration = Duration::from_hours(24);
const MINUTE: Duration = Duration::from_secs(61);

/// Refreshes, and returns the findings of the audit.
async fn found(service: &Service, device: &MlsClient<Mail>) -> Vec<AuditFinding> {
    device.connection().refresh_now(now(service)).await.unwrap();
    device.audit().unwrap().findings
}

fn key_of(service: &Service) -> NoteKey {
    service.server.ledger_key().parse().unwrap()
}

/// Waits until a server has published so many records.
async fn published(service: &Service, size: u64) {
    let api = service.open("watcher");
    in_a_minute(published_to(&api, size)).await;
}

#[test]
fn an_honest_story_has_nothing_to_tell() {
    run(async {
        let service = Service::start();
        let (alice, group) = alice_and_absent_bob(&service, 4).await;
        let bob = service.open("bob");
        assert_eq!(found(&service, &bob).await, []);
        drop(bob);
        // A spend whose answer is lost, and a home that is opened again.
        service.tunnel.lose(&[0, 2, 3]);
        alice.invite(&group, ["bob"]).await.unwrap();
        let bob = service.open("bob");
        assert_eq!(found(&service, &bob).await, []);
        bob.join(&service.mail.welcomes("bob")[0]).await.unwrap();
        assert_eq!(bob.audit().unwrap().findings, []);
        assert_eq!(found(&service, &bob).await, []);
        // Another key, and packages that are withdrawn.
        bob.rotate_key().await.unwrap();
        assert_eq!(found(&service, &bob).await, []);
        // Out of the group and in again.
        alice.remove(&group, "bob", None).await.unwrap();
        for commit in service.mail.commits(&group).iter().skip(1) {
            drop(bob.decrypt(commit).await.unwrap());
        }
        alice.invite(&group, ["bob"]).await.unwrap();
        service.clock.advance(MINUTE);
        assert_eq!(found(&service, &bob).await, []);
        bob.join(&service.mail.welcomes("bob")[1]).await.unwrap();
        service.clock.advance(DAY * 3);
        assert_eq!(found(&service, &bob).await, []);
        let audit = bob.audit().unwrap();
        assert_eq!((audit.joined, audit.severity()), (2, None));
        assert_eq!(audit.checkpoint.unwrap().origin, key_of(&service).name());
    });
}

#[test]
fn offline_weeks_accuse_nobody_and_a_welcome_that_never_comes_is_told() {
    run(async {
        let service = Service::start();
        let (alice, group) = alice_and_absent_bob(&service, 4).await;
        alice.invite(&group, ["bob"]).await.unwrap();
        service.clock.advance(DAY * 13);
        let bob = service.open("bob");
        assert_eq!(found(&service, &bob).await, [], "the Welcome is yet to be taken in");
        drop(bob);
        service.clock.advance(DAY * 2);
        let bob = service.open("bob");
        assert_eq!(found(&service, &bob).await, [], "the same, after it was there for a moment");
        service.clock.advance(MINUTE);
        let told = found(&service, &bob).await;
        let [AuditFinding::SpentWithoutWelcome { holder, .. }] = &told[..] else {
            panic!("{told:?}")
        };
        assert_eq!(*holder, Some("alice/main".parse().unwrap()));
        assert_eq!(bob.audit().unwrap().severity(), Some(Severity::Broken));
    });
}

#[test]
fn a_welcome_that_comes_late_ends_the_wait() {
    run(async {
        let service = Service::start();
        let (alice, group) = alice_and_absent_bob(&service, 4).await;
        alice.invite(&group, ["bob"]).await.unwrap();
        let bob = service.open("bob");
        for _ in 0..3 {
            service.clock.advance(DAY);
            bob.connection().refresh_now(now(&service)).await.unwrap();
        }
        assert_eq!(bob.audit().unwrap().findings.len(), 1);
        bob.join(&service.mail.welcomes("bob")[0]).await.unwrap();
        assert_eq!(found(&service, &bob).await, []);
    });
}

#[test]
fn a_refused_late_spend_is_a_notice() {
    run(async {
        let service = std::sync::Arc::new(Service::start());
        let (alice, group) = alice_and_absent_bob(&service, 2).await;
        let by = service.device("dave", 0).await;
        be_overtaken(&service, by);
        alice.invite(&group, ["bob"]).await.unwrap();
        let bob = service.open("bob");
        let told = found(&service, &bob).await;
        let audit = bob.audit().unwrap();
        assert!(matches!(&told[..], [AuditFinding::Conflict { .. }]), "{told:?}");
        assert!(audit.is_sound() && audit.severity() == Some(Severity::Notice));
    });
}

/// An answer of the server in which the last event says something else, or another one follows, as a
/// server would tell it that chains its lies well.
async fn with_lie(bob: &MlsClient<Mail>, lie: impl FnOnce(&EventEnvelope) -> Vec<Event>) -> String {
    let after = bob.connection().fetch_history(keypool_ledger::Timestamp::from_secs(0)).await;
    after.unwrap();
    let known = bob.history(None).unwrap().len() as u64;
    let mut reply = bob.connection().api().events(known - 1, 10).await.unwrap();
    let mut last = reply.events[0].clone();
    let mut envelope = codec::decode(&last.envelope.0).unwrap();
    for event in lie(&envelope) {
        envelope.prev = codec::chain_hash(&last.envelope.0);
        envelope.version += 1;
        envelope.event = event.clone();
        let bytes = codec::encode(&envelope).unwrap();
        last = EventView {
            position: last.position + 1,
            version: envelope.version,
            event,
            envelope: Base64(bytes),
            ..last
        };
        reply.events.push(last.clone());
    }
    serde_json::to_string(&reply).unwrap()
}

/// Bob hears a lie, and audits his records.
async fn hears_lie(
    service: &Service,
    bob: &MlsClient<Mail>,
    lie: impl FnOnce(&EventEnvelope) -> Vec<Event>,
) -> OwnerAudit {
    let answer = with_lie(bob, lie).await;
    service.tunnel.forge(0, 200, &answer);
    drop(bob.connection().fetch_history(now(service)).await);
    bob.audit().unwrap()
}

fn person(name: &str) -> PoolId {
    name.parse().unwrap()
}

fn claim(number: u8) -> ReservationId {
    ReservationId(Uuid::from_bytes([number; 16]))
}

fn hand_out(of: &Event, number: u8, holder: &str, later: Duration) -> Event {
    Event::Reserved {
        keypackage_ref: of.keypackage_ref().unwrap().clone(),
        reservation: claim(number),
        generation: u32::from(number),
        holder: person(holder),
        group: group("h"),
        deadline: keypool_ledger::SystemClock.now_after(later),
    }
}

trait NowAfter {
    fn now_after(&self, span: Duration) -> keypool_ledger::Timestamp;
}

impl<C: keypool_ledger::Clock> NowAfter for C {
    fn now_after(&self, span: Duration) -> keypool_ledger::Timestamp {
        self.now().after(span)
    }
}

#[test]
fn a_reservation_that_was_cut_short_is_told() {
    run(async {
        let service = Service::start();
        let bob = service.device("bob", 2).await;
        let audit = hears_lie(&service, &bob, |last| {
            let keypackage_ref = last.event.keypackage_ref().unwrap().clone();
            let (reservation, reason) = (claim(1), ReleaseReason::Lapsed);
            vec![
                hand_out(&last.event, 1, "alice/main", Duration::from_mins(1)),
                Event::Released { keypackage_ref, reservation, reason },
                hand_out(&last.event, 2, "carol/main", Duration::from_mins(1)),
            ]
        })
        .await;
        let [AuditFinding::LapsedEarly { holder, .. }] = &audit.findings[..] else {
            panic!("{audit:?}")
        };
        assert_eq!(*holder, person("alice/main"));
    });
}

#[test]
fn a_package_handed_out_twice_is_refused_and_told() {
    run(async {
        let service = Service::start();
        let bob = service.device("bob", 2).await;
        let audit = hears_lie(&service, &bob, |last| {
            ["alice/main", "carol/main"]
                .iter()
                .zip(1..)
                .map(|(holder, number)| hand_out(&last.event, number, holder, Duration::ZERO))
                .collect()
        })
        .await;
        let [AuditFinding::HistoryRefused { told_before: false, why, .. }] = &audit.findings[..]
        else {
            panic!("{audit:?}")
        };
        assert!(why.contains("cannot become reserved"), "{why}");
        // It is still known after a restart, and when the server tells the truth again.
        drop(bob);
        let bob = service.open("bob");
        assert_eq!(found(&service, &bob).await, audit.findings);
    });
}

#[test]
fn a_history_that_was_told_otherwise_is_equivocation() {
    run(async {
        let service = Service::start();
        let bob = service.device("bob", 2).await;
        let answer = with_lie(&bob, |_| Vec::new()).await;
        let mut reply: EventsReply = serde_json::from_str(&answer).unwrap();
        let mut envelope = codec::decode(&reply.events[0].envelope.0).unwrap();
        envelope.at = now(&service);
        reply.events[0].envelope = Base64(codec::encode(&envelope).unwrap());
        service.tunnel.forge(0, 200, &serde_json::to_string(&reply).unwrap());
        bob.connection().fetch_history(now(&service)).await.unwrap_err();
        let audit = bob.audit().unwrap();
        let told =
            matches!(audit.findings[..], [AuditFinding::HistoryRefused { told_before: true, .. }]);
        assert!(told, "{audit:?}");
        assert_eq!(audit.severity(), Some(Severity::Equivocation));
    });
}

/// Alice reserves and spends by hand, and somebody else sends the Welcome.
#[test]
fn a_welcome_from_another_than_the_holder_is_told() {
    run(async {
        let service = Service::start();
        let (alice, g) = alice_and_absent_bob(&service, 1).await;
        // The server thinks that Carol used the package; Alice made the Welcome.
        alice.invite(&g, ["bob"]).await.unwrap();
        let bob = service.open("bob");
        bob.join(&service.mail.welcomes("bob")[0]).await.unwrap();
        let api = bob.connection().api();
        let mut reply = api.events(0, 100).await.unwrap();
        let mut prev: Option<Vec<u8>> = None;
        for view in &mut reply.events {
            let mut envelope = codec::decode(&view.envelope.0).unwrap();
            match &mut envelope.event {
                Event::Reserved { holder, .. } => *holder = person("carol/main"),
                Event::Spent { holder, .. } => *holder = Some(person("carol/main")),
                _ => {}
            }
            if let Some(prev) = &prev {
                envelope.prev = codec::chain_hash(prev);
            }
            view.envelope = Base64(codec::encode(&envelope).unwrap());
            prev = Some(view.envelope.0.clone());
        }
        reply.events.remove(0);
        service.tunnel.forge(0, 200, &serde_json::to_string(&reply).unwrap());
        bob.connection().fetch_history(now(&service)).await.unwrap();
        let audit = bob.audit().unwrap();
        let [AuditFinding::OtherInviter { named, inviter, .. }] = &audit.findings[..] else {
            panic!("{audit:?}")
        };
        assert_eq!((named, inviter), (&person("carol/main"), &person("alice/main")));
    });
}

/// The server keeps back that it gave a package out.
#[test]
fn a_welcome_without_a_reservation_is_told() {
    run(async {
        let service = Service::start();
        let (alice, g) = alice_and_absent_bob(&service, 1).await;
        let bob = service.open("bob");
        bob.connection().fetch_history(now(&service)).await.unwrap();
        let answer = with_lie(&bob, |_| Vec::new()).await;
        alice.invite(&g, ["bob"]).await.unwrap();
        bob.join(&service.mail.welcomes("bob")[0]).await.unwrap();
        assert_eq!(bob.audit().unwrap().findings, [], "the history is older than the Welcome");
        service.tunnel.forge(0, 200, &answer);
        bob.connection().fetch_history(now(&service)).await.unwrap();
        let audit = bob.audit().unwrap();
        let told = matches!(audit.findings[..], [AuditFinding::WelcomeWithoutReservation { .. }]);
        assert!(told, "{audit:?}");
        assert_eq!(found(&service, &bob).await, [], "and when the server tells it, all is well");
    });
}

/// Which request of a new device with a pool asks for the ledger's key: after registering, status, events,
/// upload and checkpoint.
const KEY_REQUEST: usize = 5;

/// Two servers with one key go on from one log, each with its own future; the device is led from one to
/// the other.
async fn forked(with_key: bool, one_has: usize, other_has: usize) -> (Service, MlsClient<Mail>) {
    let service = Service::start();
    if !with_key {
        service.tunnel.forge(KEY_REQUEST, 404, "{}");
    }
    let bob = service.device("bob", 2).await;
    assert_eq!(found(&service, &bob).await, []);
    let (service, other) = service.fork().await;
    let base = {
        let paper = service.open("watcher2").connection().api().ledger_checkpoint().await;
        paper.unwrap().unwrap().parse::<SignedArtifact>().unwrap().checkpoint.size()
    };
    for number in 0..one_has {
        service.device(&format!("one{number}"), 0).await;
    }
    published(&service, base + one_has as u64).await;
    assert_eq!(found(&service, &bob).await, []);
    assert_eq!(bob.audit().unwrap().checkpoint.unwrap().size, base + one_has as u64);
    service.tunnel.lead_to(other.address());
    for number in 0..other_has {
        service.device(&format!("other{number}"), 0).await;
    }
    if other_has > 0 {
        published(&service, base + other_has as u64).await;
    }
    // Dropping it ends it, which is for the end of the test.
    std::mem::forget(other);
    (service, bob)
}

fn contradiction(audit: &OwnerAudit) -> (EvidenceKind, bool) {
    let [AuditFinding::CheckpointsContradict { kind, checked, .. }] = &audit.findings[..] else {
        panic!("{audit:?}")
    };
    (*kind, *checked)
}

#[test]
fn two_futures_of_one_log_are_found_and_the_evidence_is_kept() {
    let futures = [
        (true, 2, 2, EvidenceKind::SameSize),
        (true, 2, 4, EvidenceKind::OtherGrowth),
        (true, 3, 1, EvidenceKind::SetBack),
        (false, 2, 2, EvidenceKind::SameSize),
    ];
    for (with_key, one_has, other_has, kind) in futures {
        run(async {
            let (service, bob) = forked(with_key, one_has, other_has).await;
            let refresh = bob.connection().refresh_now(now(&service)).await.unwrap();
            // What the other future has handed out is not known: fresh packages take the place of all.
            assert!(refresh.drift.server_set_back && refresh.drift.retired == 32);
            let audit = bob.audit().unwrap();
            assert_eq!(contradiction(&audit), (kind, with_key));
            assert_eq!(audit.severity(), Some(Severity::Equivocation));
            drop(bob);
            let bob = service.open("bob");
            let kept = bob.audit().unwrap();
            assert_eq!(kept, audit, "after a restart");
            let [evidence] = &kept.evidence[..] else { panic!() };
            let (old, new): (SignedArtifact, SignedArtifact) =
                (evidence.old.parse().unwrap(), evidence.new.parse().unwrap());
            assert_ne!(old.checkpoint.root(), new.checkpoint.root());
            for paper in [old, new] {
                paper.note.unwrap().check(&key_of(&service)).unwrap();
            }
        });
    }
}

#[test]
fn another_key_and_another_name_are_told_and_never_taken() {
    run(async {
        let service = Service::start();
        service.tunnel.forge(KEY_REQUEST, 404, "{}");
        let bob = service.device("bob", 2).await;
        let key = key_of(&service);
        let kept = bob.audit().unwrap().checkpoint.unwrap();
        assert_eq!((kept.origin.as_str(), kept.key), (key.name(), None));
        for name in [key.name(), "other.example"] {
            let signer = NoteSigner::new(name, &[7; 32]).unwrap();
            let note = signer.sign(&format!("{name}\n99\n{}\n", kept.root)).unwrap();
            service.tunnel.forge(0, 200, &note.to_string());
            bob.connection().watch_ledger(now(&service)).await.unwrap();
        }
        let audit = bob.audit().unwrap();
        let told = matches!(
            audit.findings[..],
            [AuditFinding::LedgerKeyChanged { .. }, AuditFinding::LedgerRenamed { .. }]
        );
        assert!(told, "{audit:?}");
        // Whoever runs the server says which key it is.
        assert!(bob.connection().trust_ledger_key(&key).unwrap());
        assert_eq!(found(&service, &bob).await, []);
        let forged = service.server.ledger_key();
        assert_eq!(bob.audit().unwrap().checkpoint.unwrap().key.as_deref(), Some(forged));
    });
}

#[test]
fn a_key_that_the_server_says_is_trusted_at_first_and_held_on_to() {
    run(async {
        let service = Service::start();
        let bob = service.device("bob", 0).await;
        let (at, api) = (now(&service), bob.connection().api());
        let note = api.ledger_checkpoint().await.unwrap().unwrap();
        service.tunnel.forge(0, 200, &note);
        service.tunnel.forge(1, 200, service.server.ledger_key());
        bob.connection().watch_ledger(at).await.unwrap();
        let kept = bob.audit().unwrap().checkpoint.unwrap();
        assert_eq!(kept.key.as_deref(), Some(service.server.ledger_key()));
        let changed = note.replacen('\n', "\n1", 1);
        service.tunnel.forge(0, 200, &changed);
        bob.connection().watch_ledger(at).await.unwrap();
        let audit = bob.audit().unwrap();
        let told = matches!(audit.findings[..], [AuditFinding::CheckpointForged { .. }]);
        assert!(told, "{audit:?}");
    });
}

#[test]
fn the_ledger_costs_one_request_and_its_silence_nothing() {
    run(async {
        let service = Service::start();
        let bob = service.device("bob", 2).await;
        // It fills the pool, and hears of it.
        assert_eq!(found(&service, &bob).await, []);
        assert_eq!(found(&service, &bob).await, []);
        let before = service.tunnel.requests();
        assert_eq!(found(&service, &bob).await, []);
        assert_eq!(service.tunnel.requests() - before, 2, "status, the checkpoint");
        for (status, answer) in [(404, "{}"), (503, "busy"), (200, "<html>"), (200, "")] {
            service.tunnel.forge(1, status, answer);
            assert_eq!(found(&service, &bob).await, [], "{status} {answer}");
        }
        service.tunnel.lose(&[1]);
        assert_eq!(found(&service, &bob).await, []);
    });
}
