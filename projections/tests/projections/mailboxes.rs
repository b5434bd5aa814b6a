//! Members who stay away, groups that end, and messages that nobody keeps.

use std::time::Duration;

use keypool_ledger::{EventLog, GroupId};
use keypool_projections::{
    Acknowledgement, Command, DeliveryCommand, DeliveryLimits, DeliveryRejection, PolicyChange,
    Target,
};

use crate::{
    delivery::{SMALL, Service, commit, g, post, refusal},
    history::{at, group, pool},
    pools::{block_on, request},
};

const WEEK: Duration = Duration::from_hours(7 * 24);
const MONTH: Duration = Duration::from_hours(30 * 24);

fn g0() -> GroupId {
    group("g0")
}

fn post_in_g0(words: &str) -> DeliveryCommand {
    DeliveryCommand::Post { group: g0(), message: words.as_bytes().to_vec() }
}

impl Service {
    fn wait(&self, time: Duration) {
        self.clock.advance(time);
        block_on(self.pools.accept_clock()).unwrap();
    }

    fn last_payload(&self) -> (&'static str, Vec<u8>) {
        let last = self.log.read(self.log.head().unwrap().seq, 1).unwrap().pop().unwrap();
        (last.envelope.event.name(), last.payload)
    }

    fn set_policy(&self, id: u128, device: &str, change: PolicyChange) {
        let target = Target::Pool(pool(device));
        block_on(self.pools.execute(request(id, target, Command::SetPolicy(change)))).unwrap();
    }
}

#[test]
fn a_device_that_speaks_after_a_week_has_accepted_its_invitation() {
    for command in [post("late, but here"), commit(1, &[], &[])] {
        let service = Service::with(&["bob"]);
        service.add(10, "alice", 0, ("bob", 1));
        service.wait(WEEK);
        service.deliver(11, "bob", command).unwrap();
        assert!(service.pools.group(&g()).has_member(&pool("bob")));
        service.deliver(12, "alice", post("welcome")).unwrap();
        assert_eq!(service.waiting("bob"), ["welcome", "welcome"]);
        service.assert_audited();
    }
}

#[test]
fn an_invitation_ends_those_that_its_device_has_ignored() {
    let service = Service::with(&[]);
    service.upload_for_bob(50, &["p0", "p1", "p2"], at(0).after(MONTH));
    service.invite_bob(0, "mallory").unwrap();
    service.wait(WEEK / 2);
    service.invite_bob(1, "mallory").unwrap();
    service.wait(WEEK / 2);
    service.invite_bob(2, "carol").unwrap();
    assert!(!service.pools.group(&g0()).has_member(&pool("bob")));
    let mailbox = service.pools.mailbox(&pool("bob"));
    assert_eq!(mailbox.groups().collect::<Vec<_>>(), [&group("g1"), &group("g2")]);
    assert_eq!(service.waiting("bob"), ["welcome"; 2]);
    service.assert_audited();
}
