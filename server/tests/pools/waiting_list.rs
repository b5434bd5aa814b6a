//! Waiting lists: an inviter is told when a device has something to hand out, and a stranger no more than
//! reserving tells.

use std::time::Duration;

use keypool_ledger::{EventLog, PoolId, ReservePolicy, SignatureKey};
use keypool_projections::{
    Acknowledgement, Command, DeliveryLimits, DeliveryRejection, PolicyChange, Rejection, Remover,
    quota::{OverQuota, Quota},
};
use keypool_server::pools::{AwaitOutcome, AwaitedInvitee, DeliveryCommand, Target};

use crate::{
    delivery::{SMALL, Service, refusal},
    history::pool,
    service::{block_on, request},
};

const FORTNIGHT: Duration = Duration::from_hours(14 * 24);

fn invitee(device: &str) -> AwaitedInvitee {
    AwaitedInvitee { device: pool(device), introduced: false, over: None }
}

fn awaiting(devices: &[&str]) -> DeliveryCommand {
    let invitees = devices.iter().map(|device| invitee(device)).collect();
    DeliveryCommand::Await { invitees, stop: Vec::new() }
}

impl Service {
    /// Registers devices, each with a key of its own.
    fn registered(devices: &[&str]) -> Self {
        let service = Self::new(DeliveryLimits { awaiters_max: 2, ..DeliveryLimits::STANDARD });
        for device in devices {
            service.register(device);
        }
        service
    }

    fn register(&self, device: &str) {
        let key = keypool_ledger::Hash::of(device.as_bytes());
        let signature_key = SignatureKey::new(key.as_bytes()).unwrap();
        let credential = pool(device).user().to_owned();
        let command = Command::Admit { signature_key, credential, statement: None, frontend: None };
        self.carry_out(device, command);
    }

    fn carry_out(&self, device: &str, command: Command) {
        let id = 10_000 + u128::from(self.log.head().unwrap().seq);
        block_on(self.pools.execute(request(id, Target::Pool(pool(device)), command))).unwrap();
    }

    fn put(&self, device: &str, name: &str) {
        self.upload_as(device, 20_000 + u128::from(self.log.head().unwrap().seq), name);
    }

    fn set_owner_policy(&self, device: &str, change: PolicyChange) {
        self.carry_out(device, Command::SetPolicy(change));
    }

    fn waits(&self, inviter: &str, device: &str) -> bool {
        matches!(self.outcome(inviter, device), AwaitOutcome::Waiting(_))
    }

    fn outcome(&self, inviter: &str, device: &str) -> AwaitOutcome {
        block_on(self.pools.awaited(&pool(inviter), &invitee(device)))
    }

    fn available(&self, inviter: &str) -> Vec<String> {
        self.pools.mailbox(&pool(inviter)).available().map(ToString::to_string).collect()
    }

    fn told(&self, id: u128, inviter: &str, available: Vec<PoolId>) {
        let acknowledgement = Acknowledgement { available, ..Acknowledgement::default() };
        self.deliver(id, inviter, DeliveryCommand::Acknowledge(acknowledgement)).unwrap();
    }
}

#[test]
fn a_package_that_arrives_is_told_until_the_inviter_says_so() {
    let service = Service::registered(&["alice", "bob"]);
    let mut listener = service.pools.listen(&pool("alice"));
    service.deliver(1, "alice", awaiting(&["bob"])).unwrap();
    assert_eq!(service.outcome("alice", "bob"), {
        AwaitOutcome::Waiting(service.pools.now().after(FORTNIGHT))
    });
    let service = service.restarted();
    listener.mark_unchanged();
    let mut listener = service.pools.listen(&pool("alice"));
    service.put("bob", "b");
    assert!(listener.has_changed().unwrap(), "it wakes a waiting poll");
    listener.mark_unchanged();
    assert_eq!(service.available("alice"), ["bob/main"]);
    assert!(!service.waits("alice", "bob"));
    service.put("bob", "c");
    let service = service.restarted();
    assert_eq!(service.available("alice"), ["bob/main"]);
    service.told(2, "alice", vec![pool("bob"), pool("carol")]);
    assert_eq!(service.available("alice"), [""; 0]);
    let head = service.log.head().unwrap();
    service.told(3, "alice", vec![pool("bob")]);
    assert_eq!(service.log.head().unwrap(), head, "nothing is left to say");
    service.assert_audited();
}

#[test]
fn a_device_with_something_to_hand_out_is_not_awaited() {
    let service = Service::registered(&["alice", "bob"]);
    service.put("bob", "b");
    let head = service.log.head().unwrap();
    service.deliver(1, "alice", awaiting(&["bob", "nobody", "alice"])).unwrap();
    assert_eq!(service.log.head().unwrap(), head);
    assert_eq!(service.outcome("alice", "bob"), AwaitOutcome::Available);
    let unknown = AwaitOutcome::Refused(Rejection::UnknownUser("nobody/main".to_owned()));
    assert_eq!(service.outcome("alice", "nobody"), unknown);
    assert_eq!(service.outcome("alice", "alice"), AwaitOutcome::Refused(Rejection::OwnPool));
}

#[test]
fn an_inviter_waits_for_64_devices() {
    let service = Service::registered(&["alice"]);
    let names: Vec<String> = (0..65).map(|n| format!("user{n}")).collect();
    for name in &names {
        service.register(name);
    }
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let full = refusal(service.deliver(1, "alice", awaiting(&names)));
    assert_eq!(full, DeliveryRejection::WaitingListFull(64));
    service.deliver(2, "alice", awaiting(&names[..64])).unwrap();
    service.deliver(3, "alice", awaiting(&names[..64])).unwrap();
    let full = refusal(service.deliver(4, "alice", awaiting(&names[64..])));
    assert_eq!(full, DeliveryRejection::WaitingListFull(64));
    // One that is available keeps its place until the inviter has said that it was told.
    service.put("user0", "p");
    refusal(service.deliver(5, "alice", awaiting(&names[64..])));
    service.told(6, "alice", vec![pool("user0")]);
    service.deliver(7, "alice", awaiting(&names[64..])).unwrap();
    // A device that is awaited no longer frees its place for one of the same request.
    let again =
        DeliveryCommand::Await { invitees: vec![invitee("user2")], stop: vec![pool("user1")] };
    service.deliver(8, "alice", again).unwrap();
    service.register("last");
    let last = DeliveryCommand::Await { invitees: vec![invitee("last")], stop: vec![] };
    service.deliver(9, "alice", last).unwrap();
    assert!(service.waits("alice", "last") && !service.waits("alice", "user1"));
    service.assert_audited();
}

#[test]
fn a_wait_ends_after_a_fortnight_and_frees_its_place() {
    let service = Service::registered(&["alice", "bob"]);
    service.deliver(1, "alice", awaiting(&["bob"])).unwrap();
    service.clock.advance(FORTNIGHT);
    block_on(service.pools.accept_clock()).unwrap();
    assert!(!service.waits("alice", "bob"));
    service.put("bob", "b");
    assert_eq!(service.available("alice"), [""; 0]);
    service.assert_audited();
}

#[test]
fn a_stranger_is_told_no_more_than_reserving_tells() {
    let block = PolicyChange { blocked: vec!["alice".to_owned()], ..PolicyChange::default() };
    let reserve = Some(ReservePolicy::Contacts);
    let close = PolicyChange { reserve, ..PolicyChange::default() };
    let cases = [(block, Rejection::Blocked), (close, Rejection::ContactsOnly)];
    for (change, why) in cases {
        // The owner says so before, or while the inviter waits.
        for before in [true, false] {
            let service = Service::registered(&["alice", "bob"]);
            if before {
                service.set_owner_policy("bob", change.clone());
            }
            service.deliver(1, "alice", awaiting(&["bob"])).unwrap();
            assert_eq!(service.waits("alice", "bob"), !before);
            if !before {
                service.set_owner_policy("bob", change.clone());
            }
            let service = service.restarted();
            service.put("bob", "b");
            assert_eq!(service.available("alice"), [""; 0]);
            assert_eq!(service.outcome("alice", "bob"), AwaitOutcome::Refused(why.clone()));
            service.assert_audited();
        }
    }
}

#[test]
fn an_introduced_inviter_waits_on_while_strangers_are_shut_out() {
    let service = Service::registered(&["alice", "bob"]);
    let known = AwaitedInvitee { introduced: true, ..invitee("bob") };
    let command = DeliveryCommand::Await { invitees: vec![known], stop: Vec::new() };
    service.deliver(1, "alice", command).unwrap();
    let reserve = Some(ReservePolicy::Contacts);
    service.set_owner_policy("bob", PolicyChange { reserve, ..PolicyChange::default() });
    service.put("bob", "b");
    assert_eq!(service.available("alice"), ["bob/main"]);
}

#[test]
fn strangers_cannot_take_the_places_of_others_at_a_device() {
    let service = Service::registered(&["alice", "eve", "mallory", "bob", "bob/laptop"]);
    for (id, stranger) in [(1, "eve"), (2, "mallory"), (3, "alice")] {
        service.deliver(id, stranger, awaiting(&["bob"])).unwrap();
    }
    assert!(service.waits("eve", "bob") && service.waits("mallory", "bob"));
    assert_eq!(service.outcome("alice", "bob"), AwaitOutcome::TooMany);
    let own = AwaitedInvitee { introduced: true, ..invitee("bob") };
    let command = DeliveryCommand::Await { invitees: vec![own], stop: Vec::new() };
    service.deliver(4, "bob/laptop", command).unwrap();
    assert!(service.waits("bob/laptop", "bob"));
}

#[test]
fn removing_either_device_ends_the_wait() {
    for removed in ["alice", "bob"] {
        let service = Service::registered(&["alice", "bob"]);
        service.deliver(1, "alice", awaiting(&["bob"])).unwrap();
        let key = keypool_ledger::Hash::of(removed.as_bytes());
        let by = SignatureKey::new(key.as_bytes()).unwrap();
        service.carry_out(removed, Command::Remove { by: Remover::Key(by) });
        let service = service.restarted();
        assert!(!service.waits("alice", "bob"));
        let signature_key = SignatureKey::new(&[9; 32]).unwrap();
        let credential = removed.to_owned();
        service.carry_out(
            removed,
            Command::Admit { signature_key, credential, statement: None, frontend: None },
        );
        service.put("bob", "b");
        assert_eq!(service.available("alice"), [""; 0]);
        service.assert_audited();
    }
}

#[test]
fn a_repeated_request_writes_nothing() {
    let service = Service::registered(&["alice", "bob"]);
    let first = service.deliver(1, "alice", awaiting(&["bob"])).unwrap();
    let head = service.log.head().unwrap();
    let again = service.deliver(1, "alice", awaiting(&["bob"])).unwrap();
    assert_eq!((again.position, again.repeated), (first.position, true));
    service.deliver(2, "alice", awaiting(&["bob"])).unwrap();
    assert_eq!(service.log.head().unwrap(), head);
}

#[test]
fn a_home_stands_where_its_device_last_acknowledged_and_posted() {
    use crate::delivery::{g, post};
    let service = Service::new(SMALL);
    let made = service.deliver(1, "alice", DeliveryCommand::Make { group: g() }).unwrap();
    let stands = |service: &Service, device: &str| {
        let mailbox = service.pools.mailbox(&pool(device));
        (mailbox.acknowledged(), mailbox.last_posted())
    };
    assert_eq!(stands(&service, "alice"), (0, 0));
    service.put("bob", "bob");
    service.add(2, "alice", 0, ("bob", 1));
    service.join(3, "bob");
    let said = service.deliver(4, "bob", post("hello")).unwrap();
    let welcome = stands(&service, "bob").0;
    assert!(0 < welcome && welcome < said.position);
    let check = |service: &Service| {
        assert_eq!(stands(service, "bob"), (welcome, said.position));
        let (acknowledged, posted) = stands(service, "alice");
        assert!(acknowledged == 0 && made.position < posted && posted < welcome);
    };
    check(&service);
    service.pools.pack_all();
    check(&service);
    check(&service.restarted());
}

#[test]
fn who_may_have_the_last_resort_only_waits_for_the_limit_and_not_for_a_package() {
    let service = Service::registered(&["alice", "bob"]);
    let over = OverQuota { quota: Quota::Strangers, wait: Duration::from_mins(5) };
    let limited = AwaitedInvitee { over: Some(over), ..invitee("bob") };
    let command = DeliveryCommand::Await { invitees: vec![limited.clone()], stop: Vec::new() };
    service.deliver(1, "alice", command).unwrap();
    assert!(!service.waits("alice", "bob"));
    let outcome = block_on(service.pools.awaited(&pool("alice"), &limited));
    assert_eq!(outcome, AwaitOutcome::Refused(Rejection::from(over)));
}
