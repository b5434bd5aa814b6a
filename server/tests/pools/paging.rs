//! Groups and mailboxes may lie packed, be kept beside the log and lost: the answers stay the same.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use keypool_ledger::{
    CommandId, EventLog, Hash, PackageFacts, PoolId, ReservationId, ReservePolicy, SignatureKey,
    WelcomeFault,
};
use keypool_projections::{Acknowledgement, Claim, Command, NewPackage, PolicyChange, Remover};
use keypool_server::pools::{AwaitedInvitee, DeliveryCommand, Request, Target, Welcome};
use quickcheck::{Arbitrary, Gen, QuickCheck};
use uuid::Uuid;

use crate::{
    delivery::{Log, SMALL, Service, g, post},
    history::{at, group, package, pool},
    residency::{Between, replace, restart},
    service::block_on,
};

const DEVICES: [&str; 5] = ["alice", "bob", "bob/laptop", "carol", "dave"];
const GROUPS: [&str; 3] = ["g", "h", "i"];
const DAY: u64 = 24 * 3600;

/// One turn of a random history: a device does something, some seconds after the turn before.
#[derive(Clone, Debug)]
struct Turn {
    between: Between,
    pause: Duration,
    device: &'static str,
    /// Which member of the group does it instead, if it has any.
    member: Option<u8>,
    group: &'static str,
    deed: Deed,
}

#[derive(Clone, Debug)]
enum Deed {
    Make,
    Add(Vec<&'static str>),
    /// Devices are removed and added again by one Commit.
    AddAgain(Vec<&'static str>),
    Remove(Vec<&'static str>),
    Post(usize),
    Leave,
    /// Acknowledge so many waiting messages; whether it has joined all groups, and was told of closed ones.
    Acknowledge(usize, bool, bool),
    /// The device could join none of its groups from their Welcomes.
    Fail,
    /// The device waits for packages of others, or does not any more.
    Await(Vec<&'static str>),
    StopAwaiting(Vec<&'static str>),
    /// The device uploads a package.
    Upload,
    /// The owner lets contacts alone reserve, or everybody.
    Close,
    Open,
    Block(&'static str),
    Unblock(&'static str),
    /// The device is removed, and another one has its name since.
    Replace,
}

fn some(g: &mut Gen, names: &[&'static str]) -> Vec<&'static str> {
    let mut some: Vec<_> = names.iter().copied().filter(|_| u8::arbitrary(g) % 3 == 0).collect();
    some.extend(g.choose(names).filter(|_| some.is_empty()));
    some
}

impl Arbitrary for Turn {
    fn arbitrary(g: &mut Gen) -> Self {
        let user = *g.choose(&["alice", "bob", "carol", "dave"]).unwrap();
        let deed = match u8::arbitrary(g) % 32 {
            0 => Deed::Make,
            1..=7 => Deed::Add(some(g, &DEVICES)),
            8 | 9 => Deed::Remove(some(g, &DEVICES)),
            10..=15 => Deed::Post(usize::from(u8::arbitrary(g))),
            16 => Deed::Leave,
            17..=20 => {
                let count = usize::from(u8::arbitrary(g) % 4);
                Deed::Acknowledge(count, bool::arbitrary(g), bool::arbitrary(g))
            }
            21 => Deed::Block(user),
            22 => Deed::Unblock(user),
            23 => Deed::AddAgain(some(g, &DEVICES)),
            24 => Deed::Fail,
            25 | 26 => Deed::Await(some(g, &DEVICES)),
            27 => Deed::StopAwaiting(some(g, &DEVICES)),
            28 => Deed::Upload,
            29 => Deed::Close,
            30 => Deed::Open,
            _ => Deed::Replace,
        };
        let pauses = [0, 0, 1, 60, 3600, DAY, 5 * DAY, 16 * DAY];
        let pause = Duration::from_secs(*g.choose(&pauses).unwrap());
        let group = *g.choose(&["g", "g", "h", "h", "i"]).unwrap();
        let (between, device) = (Between::arbitrary(g), *g.choose(&DEVICES).unwrap());
        let member = Some(u8::arbitrary(g)).filter(|n| n % 8 != 0);
        Self { between, pause, device, member, group, deed }
    }
}

fn key(n: u128) -> SignatureKey {
    SignatureKey::new(Hash::of(&n.to_be_bytes()).as_bytes()).unwrap()
}

fn awaiting(names: &[&str], stop: &[&str]) -> DeliveryCommand {
    let invitee =
        |name: &&str| AwaitedInvitee { device: pool(name), introduced: false, over: None };
    let invitees = names.iter().map(invitee).collect();
    DeliveryCommand::Await { invitees, stop: stop.iter().map(|name| pool(name)).collect() }
}

/// The history before the random turns: each device has a key, and a device has made each group.
fn begin(service: &Service) {
    for (n, device) in (0..).zip(DEVICES) {
        service.admit(900 + n, device, key(n));
    }
    for (n, (name, maker)) in (950..).zip(GROUPS.into_iter().zip(DEVICES).take(2)) {
        service.deliver(n, maker, DeliveryCommand::Make { group: group(name) }).unwrap();
    }
}

impl Service {
    /// Carries out a command to a pool, and returns its outcome in words.
    fn run(&self, id: u128, device: &str, command: Command) -> String {
        let digest = Hash::of(&id.to_be_bytes());
        let (target, id) = (Target::Pool(pool(device)), CommandId(Uuid::from_u128(id)));
        match block_on(self.pools.execute(Request { target, command, id, digest })) {
            Ok(reply) => format!("{:?} at {}", reply.answer, reply.position),
            Err(error) => format!("{error:?}"),
        }
    }

    fn admit(&self, id: u128, device: &str, signature_key: SignatureKey) -> String {
        self.run(
            id,
            device,
            Command::Admit {
                signature_key,
                credential: device.to_owned(),
                statement: None,
                frontend: None,
            },
        )
    }

    /// The device whose turn it is.
    fn device_of(&self, Turn { device, member, group: name, .. }: &Turn) -> String {
        let members = self.pools.group(&group(name));
        let place =
            member.map_or(usize::MAX, |n| usize::from(n) % members.members().count().max(1));
        members.members().nth(place).map_or((*device).to_owned(), ToString::to_string)
    }

    /// Plays a turn, and returns its outcome in words.
    fn play(&self, id: u128, turn: &Turn) -> String {
        let Turn { group: name, deed, .. } = turn;
        let (group, device) = (group(name), &self.device_of(turn));
        let command = match deed {
            Deed::Make => DeliveryCommand::Make { group },
            Deed::Add(added) => return self.add_all(id, (device, name), added, &[]),
            Deed::AddAgain(added) => return self.add_all(id, (device, name), added, added),
            Deed::Remove(gone) => {
                let removed = gone.iter().map(|gone| pool(gone)).collect();
                self.commit(name, Vec::new(), removed)
            }
            Deed::Post(bytes) => DeliveryCommand::Post { group, message: vec![7; *bytes] },
            Deed::Leave => DeliveryCommand::Leave { group },
            Deed::Acknowledge(count, joined, told) => {
                let mailbox = self.pools.mailbox(&pool(device));
                let through = mailbox.after(0).take(*count).last().map(|waiting| waiting.position);
                let accepted = mailbox.groups().filter(|_| *joined).cloned().collect();
                let told = mailbox.closed().filter(|_| *told).map(|closed| closed.group);
                DeliveryCommand::Acknowledge(Acknowledgement {
                    through: through.unwrap_or_default(),
                    overrun: false,
                    accepted,
                    told: told.collect(),
                    available: mailbox.available().filter(|_| *joined).cloned().collect(),
                    failed: Vec::new(),
                })
            }
            Deed::Fail => {
                let mailbox = self.pools.mailbox(&pool(device));
                let failed = mailbox.groups().map(|group| (group.clone(), WelcomeFault::KeysGone));
                DeliveryCommand::Acknowledge(Acknowledgement {
                    failed: failed.collect(),
                    ..Acknowledgement::default()
                })
            }
            Deed::Await(names) => awaiting(names, &[]),
            Deed::StopAwaiting(names) => awaiting(&[], names),
            Deed::Upload => return self.upload(id, device),
            Deed::Close => return self.open_to(id, device, ReservePolicy::Contacts),
            Deed::Open => return self.open_to(id, device, ReservePolicy::Open),
            Deed::Block(user) | Deed::Unblock(user) => {
                let (named, none) = (vec![(*user).to_owned()], Vec::new);
                let blocks = matches!(deed, Deed::Block(_));
                let (blocked, unblocked) = if blocks { (named, none()) } else { (none(), named) };
                let change = PolicyChange { blocked, unblocked, ..PolicyChange::default() };
                return self.run(id, device, Command::SetPolicy(change));
            }
            Deed::Replace => {
                let registered = self.pools.pool(&pool(device)).unwrap();
                let Some(of) = registered.state.registration() else {
                    return self.admit(id, device, key(id));
                };
                let by = of.signature_key.clone();
                let removed = self.run(id, device, Command::Remove { by: Remover::Key(by) });
                return removed + &self.admit(id + 1, device, key(id));
            }
        };
        format!("{:?}", self.deliver(id, device, command))
    }

    fn open_to(&self, id: u128, device: &str, reserve: ReservePolicy) -> String {
        let change = PolicyChange { reserve: Some(reserve), ..PolicyChange::default() };
        self.run(id, device, Command::SetPolicy(change))
    }

    /// Uploads a package of a device that lives for long, and returns the outcome in words.
    fn upload(&self, id: u128, device: &str) -> String {
        let NewPackage { facts, bytes, leaf_key } = package(&format!("p{id}"));
        let facts = PackageFacts {
            not_after: at(0).after(Duration::from_secs(10_000 * DAY)),
            credential: Hash::of(device.as_bytes()),
            ..facts
        };
        self.run(id, device, Command::Upload(vec![NewPackage { facts, bytes, leaf_key }]))
    }

    /// Reserves a package of each of these devices for the group, and adds those by one Commit, which
    /// removes others.
    fn add_all(
        &self,
        id: u128,
        (device, into): (&str, &str),
        added: &[&str],
        removed: &[&str],
    ) -> String {
        let mut told = String::new();
        let mut spends = Vec::new();
        for (n, other) in (1..).zip(added) {
            let reservation = ReservationId(Uuid::from_u128(id + n));
            told += &self.upload(id + 10 + n, other);
            let reserve = Command::Reserve {
                reservation,
                holder: pool(device),
                group: group(into),
                ciphersuites: Vec::new(),
                required: keypool_projections::RequiredCapabilities::default(),
                introduced: true,
                last_resort_only: false,
            };
            let reserved = self.run(id + 20 + n, other, reserve);
            told += &reserved;
            // Which package it is says the reservation: there may be others from before.
            let found = self.pools.reservation(reservation).unwrap();
            spends.extend(found.map(|(found, ..)| Claim {
                keypackage_ref: found.facts.keypackage_ref,
                reservation,
                holder: pool(device),
            }));
        }
        let command = self.commit(into, spends, removed.iter().map(|name| pool(name)).collect());
        format!("{told}{:?}", self.deliver(id + 30, device, command))
    }

    fn commit(&self, name: &str, spends: Vec<Claim>, removed: Vec<PoolId>) -> DeliveryCommand {
        let (group, commit) = (group(name), b"commit".to_vec());
        let epoch = self.pools.group(&group).epoch();
        let refs: Vec<_> = spends.iter().map(|claim| claim.keypackage_ref.clone()).collect();
        let welcome = Welcome { bytes: b"welcome".to_vec(), keypackage_refs: refs };
        let welcomes = if spends.is_empty() { Vec::new() } else { vec![welcome] };
        DeliveryCommand::Commit { group, epoch, commit, welcomes, spends, removed }
    }

    /// Starts the service again, after something was done to the snapshots.
    fn again(self, between: impl FnOnce(&Log)) -> Self {
        let Self { log, clock, pools } = self;
        drop(pools);
        between(&log);
        Self::on(log, clock, SMALL)
    }

    /// Every group and every mailbox, in words.
    fn states(&self) -> String {
        let groups = GROUPS.map(|name| self.pools.group(&group(name)));
        let mailboxes = DEVICES.map(|device| self.pools.mailbox(&pool(device)));
        format!("{groups:?} {mailboxes:?}")
    }
}

/// Plays a history on two services: one packs everything after each turn and starts from snapshots, or from
/// those that are left; the other never packs, and folds the whole log at each start.
fn pages_nothing_that_counts(turns: &[Turn]) -> Result<(), String> {
    let [mut paged, mut plain] = [(); 2].map(|()| Service::new(SMALL));
    begin(&paged);
    begin(&plain);
    let mut earlier = Vec::new();
    for (n, turn) in (1..).zip(turns) {
        if !matches!(turn.between, Between::Nothing) {
            paged = paged.again(|log| restart(turn.between, log, &mut earlier));
            plain = plain.again(|log| replace(log, &[]));
        }
        paged.pools.pack_all();
        let [was, should] = [&paged, &plain].map(|service| {
            service.clock.advance(turn.pause);
            let accepted = block_on(service.pools.accept_clock());
            format!("{accepted:?} {}", service.play(1000 * n, turn))
        });
        if was != should {
            return Err(format!("turn {n}: {was} instead of {should}"));
        }
        paged.pools.pack_all();
        let [was, should] = [&paged, &plain].map(Service::states);
        if was != should {
            return Err(format!("after turn {n}: {was} instead of {should}"));
        }
    }
    let [was, should] = [&paged, &plain].map(|service| service.log.read(1, usize::MAX).unwrap());
    if was != should {
        return Err("the events differ".to_owned());
    }
    paged.assert_audited();
    Ok(())
}

#[test]
fn a_delivery_that_is_paged_out_decides_as_one_that_is_not() {
    #[expect(clippy::needless_pass_by_value, reason = "quickcheck gives values")]
    fn property(turns: Vec<Turn>) -> Result<bool, String> {
        pages_nothing_that_counts(&turns).map(|()| true)
    }
    let property = property as fn(Vec<Turn>) -> Result<bool, String>;
    QuickCheck::new().tests(60).quickcheck(property);
}

#[test]
fn nothing_is_lost_while_one_packs_and_another_reads() {
    let service = Service::with(&["bob"]);
    service.add(10, "alice", 0, ("bob", 1));
    service.join(11, "bob");
    let over = Arc::new(AtomicBool::new(false));
    let busy: Vec<_> = [true, false, false]
        .into_iter()
        .map(|packs| {
            let (pools, over) = (Arc::clone(&service.pools), Arc::clone(&over));
            thread::spawn(move || {
                while !over.load(Ordering::Relaxed) {
                    if packs {
                        pools.pack_all();
                    } else {
                        assert!(pools.group(&g()).has_member(&pool("bob")));
                        assert!(pools.mailbox(&pool("bob")).len() <= 300);
                    }
                }
            })
        })
        .collect();
    let words: Vec<String> = (0..300).map(|n| format!("message {n}")).collect();
    for (id, words) in (100..).zip(&words) {
        service.deliver(id, "alice", post(words)).unwrap();
    }
    over.store(true, Ordering::Relaxed);
    for thread in busy {
        thread.join().unwrap();
    }
    assert_eq!(service.waiting("bob"), words);
    service.assert_audited();
}

#[test]
fn what_lies_packed_is_kept_as_it_is() {
    let service = Service::with(&["bob", "carol"]);
    service.add(10, "alice", 0, ("bob", 1));
    service.deliver(11, "alice", post("one")).unwrap();
    service.pools.pack_all();
    let service = service.restarted();
    assert_eq!(service.waiting("bob"), ["welcome", "one"]);
    // From packed to packed again: nothing was asked for between.
    let service = service.restarted();
    service.deliver(12, "alice", post("two")).unwrap();
    assert_eq!(service.restarted().waiting("bob"), ["welcome", "one", "two"]);
}
