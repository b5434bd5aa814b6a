//! The ceilings, measured beside the subjects: an `fdatasync`, and the checks of an uploaded package.

use std::{
    fs::File,
    io::Write,
    os::unix::fs::FileExt,
    path::Path,
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    thread,
    time::Duration,
};

use actix_rt::time::Instant;
use keypool_ledger::{Clock, SystemClock};
use keypool_server::{AdmissionRules, Owner, admit};

use crate::{
    Outcome,
    measure::{approx, percentile},
    packages::make,
    population::Device,
};

/// How many bytes are forced to the disk: about an event.
const BYTES: usize = 400;
/// How often.
const TIMES: u64 = 500;
/// How many packages are checked, round and round.
const PACKAGES: usize = 64;
/// How long packages are checked.
const TIME: Duration = Duration::from_secs(1);

/// How long half of the writes of an event to a file of full length take, `fdatasync` included, in
/// milliseconds.
pub(crate) fn fdatasync_ms(dir: &Path) -> Outcome<f64> {
    let path = dir.join("fdatasync");
    let mut file = File::create(&path)?;
    file.write_all(&vec![0; 1 << 20])?;
    file.sync_all()?;
    let mut taken = Vec::new();
    for nth in 0..TIMES {
        let begun = Instant::now();
        file.write_all_at(&[7; BYTES], nth * BYTES as u64)?;
        file.sync_data()?;
        taken.push(u64::try_from(begun.elapsed().as_nanos())?);
    }
    taken.sort_unstable();
    std::fs::remove_file(path)?;
    Ok(approx(percentile(&taken, 500)) / 1e6)
}

/// How many packages all processors together can admit in a second.
pub(crate) fn admissions(device: &Device) -> Outcome<f64> {
    let owner = Owner::new(device.pool.clone(), Some(device.keyid()?));
    let packages = (0..PACKAGES).map(|_| make(device)).collect::<Outcome<Vec<_>>>()?;
    let rules = AdmissionRules::default();
    let (admitted, refused) = (AtomicU64::new(0), AtomicBool::new(false));
    let begun = Instant::now();
    thread::scope(|scope| {
        for _ in 0..thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(|| {
                for package in packages.iter().cycle() {
                    match admit(package, &owner, SystemClock.now(), &rules) {
                        Ok(_) => admitted.fetch_add(1, Ordering::Relaxed),
                        Err(_) => return refused.store(true, Ordering::Relaxed),
                    };
                    if TIME <= begun.elapsed() {
                        return;
                    }
                }
            });
        }
    });
    if refused.into_inner() {
        return Err("a package was not admitted".into());
    }
    Ok(approx(admitted.into_inner()) / begun.elapsed().as_secs_f64())
}
