//! The cost of the rules: the fold of a history, each decision, and the count of a pool. `just bench-rules`.

use std::{error::Error, hint::black_box, time::Duration};

use criterion::{BatchSize, Criterion};
use keypool_ledger::{
    Event, GroupId, Hash, KeyPackageRef, PackageFacts, PoolId, ReservationId, SignatureKey,
    Timestamp,
};
use keypool_projections::{
    Answer, Claim, Command, Health, Limits, NewPackage, PoolState,
    quota::{Ask, Inviters, Keys, Quotas, Relation, Targets},
};
use uuid::Uuid;

type Outcome<T> = Result<T, Box<dyn Error>>;

/// The packages that a refill brings.
const REFILL: u64 = 32;
/// How many packages the long history has used up.
const USED: u64 = 1_024;
/// The moment at which everything is decided: some day in 2027.
const NOW: Timestamp = Timestamp::from_millis(1_800_000_000_000);
const LIMITS: Limits = Limits::STANDARD;
/// How many inviters something is counted of.
const INVITERS: u64 = 10_000;
/// How long they hold a package at most.
const TTL: Duration = Duration::from_mins(2);

/// A pool, and the history that has led to it.
#[derive(Clone, Default)]
struct Grown {
    pool: PoolState,
    history: Vec<Event>,
    packages: u64,
}

impl Grown {
    /// Carries a command out.
    fn execute(&mut self, command: &Command) -> Outcome<Answer> {
        let decision = self.pool.decide(command, NOW, &LIMITS);
        let answer = decision.answer?;
        for event in decision.events {
            self.pool.evolve(&event, NOW)?;
            self.history.push(event);
        }
        Ok(answer)
    }

    fn register(&mut self) -> Outcome<()> {
        let signature_key = SignatureKey::new(&[7; 32])?;
        let credential = "alice/phone".to_owned();
        self.execute(&Command::Register { signature_key, credential, statement: None })?;
        Ok(())
    }

    fn refill(&mut self) -> Outcome<()> {
        let upload = upload(self.packages)?;
        self.packages += REFILL;
        self.execute(&upload)?;
        Ok(())
    }

    /// Sets a package aside and returns the claim on it.
    fn reserve(&mut self, n: u64) -> Outcome<Claim> {
        match self.execute(&reserve(n)?)? {
            Answer::Reserved { facts, reservation, .. } => {
                let (keypackage_ref, holder) = (facts.keypackage_ref, inviter()?);
                Ok(Claim { keypackage_ref, reservation, holder })
            }
            other => Err(format!("{other:?} is no reservation").into()),
        }
    }

    /// A pool with 32 packages, after so many were used up.
    fn after(used: u64) -> Outcome<Self> {
        let mut grown = Self::default();
        grown.register()?;
        for n in 0..used {
            if n % REFILL == 0 {
                grown.refill()?;
            }
            let claim = grown.reserve(n)?;
            grown.execute(&spend(claim)?)?;
        }
        grown.refill()?;
        Ok(grown)
    }
}

fn inviter() -> Outcome<PoolId> {
    Ok(PoolId::new("bob", "laptop")?)
}

fn group() -> Outcome<GroupId> {
    Ok(GroupId::new(&[7; 32])?)
}

fn reserve(n: u64) -> Outcome<Command> {
    let (reservation, holder) = (ReservationId(Uuid::from_u128(u128::from(n))), inviter()?);
    Ok(Command::Reserve {
        reservation,
        holder,
        group: group()?,
        ciphersuites: vec![1],
        required: keypool_projections::RequiredCapabilities::default(),
        introduced: false,
        last_resort_only: false,
    })
}

fn spend(claim: Claim) -> Outcome<Command> {
    Ok(Command::Spend { claim, group: group()? })
}

/// 32 packages that have not been seen before, from the `first` on.
fn upload(first: u64) -> Outcome<Command> {
    let package = |n: u64| {
        let digest = Hash::of(&n.to_be_bytes());
        let facts = PackageFacts {
            keypackage_ref: KeyPackageRef::new(digest.as_bytes())?,
            not_before: Timestamp::from_millis(0),
            not_after: Timestamp::MAX,
            ciphersuite: 1,
            credential: Hash::of(b"a credential"),
            init_key: digest,
            last_resort: false,
            capabilities: None,
        };
        Ok(NewPackage { facts, bytes: vec![7; 300], leaf_key: None })
    };
    Ok(Command::Upload((first..first + REFILL).map(package).collect::<Outcome<_>>()?))
}

fn bench_decisions(criterion: &mut Criterion, name: &str, grown: &Grown) -> Outcome<()> {
    let mut holding = grown.clone();
    let spend = spend(holding.reserve(u64::MAX)?)?;
    let cases = [
        ("reserve", &grown.pool, reserve(u64::MAX - 1)?),
        ("spend", &holding.pool, spend),
        ("upload of 32", &grown.pool, upload(grown.packages)?),
        ("settle with nothing due", &grown.pool, Command::Settle),
    ];
    for (what, pool, command) in cases {
        criterion.bench_function(&format!("decide/{what}, {name}"), |bench| {
            bench.iter(|| pool.decide(black_box(&command), NOW, &LIMITS));
        });
    }
    // A reservation that has run out, so that time has done something.
    let later = NOW.after(LIMITS.reservation_ttl).after(LIMITS.grace);
    criterion.bench_function(&format!("decide/settle of a lapse, {name}"), |bench| {
        bench.iter(|| holding.pool.decide(black_box(&Command::Settle), later, &LIMITS));
    });
    Ok(())
}

fn bench_folds(criterion: &mut Criterion, name: &str, grown: &Grown) {
    let events = grown.history.len();
    criterion.bench_function(&format!("fold/replay of {events} events, {name}"), |bench| {
        let history = || grown.history.iter().map(|event| (event, NOW));
        bench.iter(|| PoolState::replay(black_box(history())));
    });
    criterion.bench_function(&format!("fold/health, {name}"), |bench| {
        bench.iter(|| Health::of(black_box(&grown.pool), NOW, &LIMITS));
    });
}

/// A reservation and its spend, decided and folded: the writing thread's work for an invitation.
fn bench_invitation(criterion: &mut Criterion, name: &str, grown: &Grown) {
    criterion.bench_function(&format!("invitation/decided and folded, {name}"), |bench| {
        let invite = |mut pool: Grown| -> Outcome<Grown> {
            let claim = pool.reserve(u64::MAX)?;
            pool.execute(&spend(claim)?)?;
            Ok(pool)
        };
        let fresh = || Grown { history: Vec::new(), ..grown.clone() };
        bench.iter_batched(fresh, invite, BatchSize::SmallInput);
    });
}

/// The cost of the limits for a reservation: asked, counted, and the claim ended, among many inviters of
/// as many pools.
fn bench_limits(criterion: &mut Criterion) -> Outcome<()> {
    let (keys, quotas) = (Keys::default(), Quotas::STANDARD);
    let names = |kind: &str| -> Outcome<Vec<PoolId>> {
        (0..INVITERS).map(|n| Ok(PoolId::new(&format!("{kind}{n}"), "phone")?)).collect()
    };
    let (inviters, pools) = (names("inviter")?, names("pool")?);
    let (mut counted, mut targets) = (Inviters::default(), Targets::default());
    let (mut now, mut turn) = (NOW, 0_u64);
    criterion.bench_function("limits/asked, counted and ended, 10,000 inviters", |bench| {
        bench.iter(|| {
            turn += 1;
            // Slow enough for everybody to be within the limits.
            now = now.after(Duration::from_millis(100));
            let place = usize::try_from(turn % INVITERS).unwrap_or_default();
            let Some((inviter, pool)) = inviters.get(place).zip(pools.get(place)) else {
                return false;
            };
            let (id, relation) = (u128::from(turn), Relation::Stranger(quotas.strangers));
            let claim = (ReservationId(Uuid::from_u128(id)), relation, now.after(TTL));
            let ask = Ask::new(&keys, black_box(inviter), black_box(pool), claim);
            let granted = counted.ask(&mut targets, &ask, &quotas, now);
            counted.end(ask.inviter, ask.reservation);
            granted.is_ok()
        });
    });
    Ok(())
}

fn main() -> Outcome<()> {
    let mut criterion = Criterion::default().configure_from_args();
    let (fresh, long) = (Grown::after(0)?, Grown::after(USED)?);
    for (name, grown) in [("32 live", &fresh), ("32 live and 1024 used", &long)] {
        bench_folds(&mut criterion, name, grown);
        bench_decisions(&mut criterion, name, grown)?;
        bench_invitation(&mut criterion, name, grown);
    }
    bench_limits(&mut criterion)?;
    criterion.final_summary();
    Ok(())
}
