//! A pool that the server has evicted from memory, and reloads for a command.

use keypool_ledger::{KeyPackageRef, Record};
use keypool_projections::{
    Command, Decision, Evicted, Limits, PoolState,
    packing::{Packer, Unpacker},
};

use super::{scene::Scene, witness::Broken};
use crate::history::{envelope, pool};

/// Decides a command on the pool that was forgotten, packed, unpacked, and reloaded as far as the command names
/// packages.
pub(crate) fn decide(
    scene: &Scene,
    command: &Command,
    limits: &Limits,
) -> Result<Decision, Broken> {
    let mut forgotten = scene.pool.clone();
    forgotten.forget();
    let mut packed = Packer::default();
    forgotten.pack(&mut packed);
    let bytes = packed.into_bytes();
    let unpacked = PoolState::unpack(&mut Unpacker::new(&bytes));
    let mut reloaded = unpacked.ok_or("a packed pool cannot be read")?;
    if reloaded != forgotten {
        return Err("a packed pool is another one".to_owned());
    }
    for evicted in reloaded.evicted_by(command) {
        let of = match &evicted {
            Evicted::Package(of) => Some(of.clone()),
            Evicted::Reservation(id) => {
                scene.pool.reservation(*id).map(|made| made.keypackage_ref.clone())
            }
            Evicted::InitKey(init_key) if scene.pool.knows_init_key(init_key) => {
                reloaded.recall_init_key(*init_key);
                None
            }
            Evicted::InitKey(_) => None,
        };
        let records = of.map(|of| records_of(scene, &of)).unwrap_or_default();
        reloaded.recall(&records).map_err(|err| err.to_string())?;
    }
    Ok(reloaded.decide(command, scene.now(), limits))
}

/// The records of one package, as the log has them.
fn records_of(scene: &Scene, of: &KeyPackageRef) -> Vec<Record> {
    let numbered = (1..).zip(scene.events());
    let own = numbered.filter(|(_, (event, _))| event.keypackage_ref() == Some(of));
    let record = |(seq, (event, at)): (u64, (&keypool_ledger::Event, _))| Record {
        seq,
        envelope: envelope(seq, pool("bob"), event.clone(), at),
        envelope_bytes: Vec::new(),
        payload: Vec::new(),
    };
    own.map(record).collect()
}
