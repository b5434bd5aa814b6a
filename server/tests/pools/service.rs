//! A service of pools on a log in memory, and the requests of the stories.

use std::{sync::Arc, thread, time::Duration};

use keypool_ledger::{
    Clock, CommandId, EventLog, Hash, KeyPackageRef, ManualClock, MemoryLog, Signature,
    SignatureKey, SignedStatement, SnapshotStore,
};
use keypool_projections::{Answer, Command, DeliveryLimits, Limits};
use keypool_server::pools::{ExecuteError, Pools, Progress, Reply, Request, Target};
use uuid::Uuid;

use crate::history::{START, claim, group, package, pool, reservation};

/// The log of a service.
pub(crate) type Shared = Arc<MemoryLog>;

/// A service on a log in memory, with a clock that stands still.
#[derive(Clone)]
pub(crate) struct Service {
    pub(crate) log: Shared,
    pub(crate) clock: Arc<ManualClock>,
    pub(crate) pools: Arc<Pools<Shared>>,
}

impl Service {
    pub(crate) fn new() -> Self {
        Self::on(Arc::new(MemoryLog::default()), Arc::new(ManualClock::at(START)))
    }

    pub(crate) fn on(log: Shared, clock: Arc<ManualClock>) -> Self {
        let pools = open_kept(&log, clock.clone(), Limits::STANDARD);
        Self { log, clock, pools: Arc::new(pools) }
    }

    /// The same service after a restart.
    pub(crate) fn restarted(self) -> Self {
        let Self { log, clock, pools } = self;
        drop(pools);
        Self::on(log, clock)
    }

    pub(crate) fn run(
        &self,
        id: u128,
        target: &str,
        command: Command,
    ) -> Result<Reply, ExecuteError> {
        block_on(self.pools.execute(request(id, Target::Pool(pool(target)), command)))
    }

    pub(crate) fn upload(&self, id: u128, owner: &str, names: &[&str]) -> Reply {
        let packages = names.iter().map(|name| package(name)).collect();
        self.run(id, owner, Command::Upload(packages)).unwrap()
    }

    pub(crate) fn events(&self) -> Vec<&'static str> {
        let records = self.log.read(1, usize::MAX).unwrap();
        records.iter().map(|record| record.envelope.event.name()).collect()
    }
}

/// Opens the pools of a log that keeps their snapshots too.
pub(crate) fn open_kept<L>(log: &Arc<L>, clock: Arc<dyn Clock>, limits: Limits) -> Pools<Arc<L>>
where
    L: EventLog + SnapshotStore + 'static,
{
    let (snapshots, delivery_limits) = (Arc::clone(log), DeliveryLimits::STANDARD);
    let progress = Progress::default();
    Pools::open_with(Arc::clone(log), snapshots, clock, limits, delivery_limits, &progress).unwrap()
}

pub(crate) fn request(id: u128, target: Target, command: Command) -> Request {
    // A request without a voucher has the digest it had before there were vouchers, as over HTTP: the
    // fixtures keep their bytes. So it is without an introduction, and without a leaf key.
    let text = format!("{target:?} {command:?}").replace(", statement: None", "");
    let text = text
        .replace(", introduced: false", "")
        .replace(", last_resort_only: false", "")
        .replace(", leaf_key: None", "");
    let digest = Hash::of(text.as_bytes());
    Request { target, command, id: CommandId(Uuid::from_u128(id)), digest }
}

pub(crate) fn reserve(number: u8, holder: &str) -> Command {
    Command::Reserve {
        reservation: reservation(number),
        holder: pool(holder),
        group: group("g"),
        ciphersuites: Vec::new(),
        required: keypool_projections::RequiredCapabilities::default(),
        introduced: false,
        last_resort_only: false,
    }
}

pub(crate) fn spend(name: &str, number: u8, holder: &str) -> Command {
    Command::Spend { claim: claim(name, number, holder), group: group("g") }
}

pub(crate) fn reserved(reply: &Reply) -> KeyPackageRef {
    match &reply.answer {
        Answer::Reserved { facts, .. } => facts.keypackage_ref.clone(),
        other => panic!("not a reservation: {other:?}"),
    }
}

/// A statement that a key has signed on a user's device list as it is, good for another five minutes.
///
/// The rules take the signature on trust: the server has checked it.
pub(crate) fn statement(service: &Service, user: &str, by: u8) -> SignedStatement {
    SignedStatement {
        by: SignatureKey::new(&[by; 32]).unwrap(),
        head: service.pools.device_list_head(user),
        until: service.clock.now().after(Duration::from_mins(5)),
        proof: Signature::new(&[0; 64]).unwrap(),
    }
}

pub(crate) fn register(key: u8, credential: &str) -> Command {
    let signature_key = SignatureKey::new(&[key; 32]).unwrap();
    Command::Register { signature_key, credential: credential.to_owned(), statement: None }
}

/// The futures of the pools only wait for another thread: polling them in turn is enough.
pub(crate) fn block_on<F: Future>(future: F) -> F::Output {
    struct Unpark(thread::Thread);
    impl std::task::Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    let waker = Arc::new(Unpark(thread::current())).into();
    let mut context = std::task::Context::from_waker(&waker);
    let mut future = std::pin::pin!(future);
    loop {
        match future.as_mut().poll(&mut context) {
            std::task::Poll::Ready(output) => return output,
            std::task::Poll::Pending => thread::park(),
        }
    }
}
