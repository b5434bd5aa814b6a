//! The bytes that may be forgotten, and all others that are missed: at every position, for every span.

use std::{collections::HashSet, path::Path, time::Duration};

use keypool_auditor::{
    source::SourceEnd,
    verify::{FindingSeverity, VerificationReport, Verifier},
};
use keypool_ledger::{Event, Hash, RawRecord, Record, ReservePolicy, StreamId};
use keypool_projections::retention::Retention;

use crate::{
    histories::{clean, sealed, written},
    history::pool,
};

/// The records whose payloads may go.
pub(crate) fn prunable(records: &[Record], keep: Duration) -> HashSet<u64> {
    let mut retention = Retention::default();
    for record in records {
        retention.see(record.seq, &record.envelope, !record.payload.is_empty());
    }
    retention.prunable(keep)
}

/// The records without the payloads of some.
pub(crate) fn without(records: &[Record], gone: &HashSet<u64>) -> Vec<Record> {
    let mut records = records.to_vec();
    records.iter_mut().filter(|record| gone.contains(&record.seq)).for_each(|record| {
        record.payload.clear();
    });
    records
}

fn verified(records: &[Record]) -> VerificationReport {
    let mut verifier = Verifier::expecting(&[]);
    for Record { seq, envelope_bytes, payload, .. } in records {
        let file = Path::new("none");
        verifier.take(&RawRecord { seq: *seq, envelope_bytes, payload, file, offset: 0 });
    }
    verifier.finish(Ok(SourceEnd::default()))
}

/// The bytes that may go, said once more: those of a package that ended long ago.
fn naive(records: &[Record], keep: Duration) -> HashSet<u64> {
    let now = records.last().map(|record| record.envelope.at).unwrap_or_default();
    let ended = |of| {
        records.iter().any(|record| {
            let ends = match &record.envelope.event {
                Event::Expired { keypackage_ref } => keypackage_ref == of,
                Event::Spent { keypackage_ref, .. } => keypackage_ref == of,
                _ => false,
            };
            ends && record.envelope.at.after(keep) <= now
        })
    };
    let uploads = records.iter().filter(|record| match &record.envelope.event {
        Event::Uploaded(facts) => ended(&facts.keypackage_ref),
        _ => false,
    });
    uploads.map(|record| record.seq).collect()
}

#[test]
fn what_may_go_is_not_missed_and_all_else_is() {
    let (all, mut pruned_most) = (clean(), 0);
    for len in 0..=all.len() {
        let records = &all[..len];
        for keep in [0, 1, 30_000, 1_000_000, 86_400_000].map(Duration::from_millis) {
            let gone = prunable(records, keep);
            assert_eq!(gone, naive(records, keep), "{len} records, {keep:?}");
            let (whole, pruned) = (verified(records), verified(&without(records, &gone)));
            assert_eq!(pruned.findings, []);
            assert_eq!((pruned.root, pruned.pruned), (whole.root, gone.len() as u64));
            pruned_most = pruned_most.max(gone.len());
        }
        let may_go = prunable(records, Duration::ZERO);
        for record in records {
            let is_nothing = record.envelope.payload == Hash::of(&[]);
            if is_nothing || may_go.contains(&record.seq) {
                continue;
            }
            let verdict = verified(&without(records, &HashSet::from([record.seq])));
            let [found] = &verdict.findings[..] else { panic!("record {}", record.seq) };
            assert_eq!((found.rule, found.gravity), ("payload", FindingSeverity::Damage));
            assert_eq!((&found.events[..], verdict.pruned), (&[record.seq][..], 0));
        }
    }
    assert_eq!(pruned_most, 6, "the four that were spent and the two that expired");
}

#[test]
fn a_last_resort_keeps_its_bytes_when_it_is_spent() {
    let mut records = clean();
    // As if a package that was spent had been a last resort all along.
    let of = records.iter().find_map(|record| match &record.envelope.event {
        Event::Spent { keypackage_ref, .. } => Some(keypackage_ref.clone()),
        _ => None,
    });
    for record in &mut records {
        if let Event::Uploaded(facts) = &mut record.envelope.event {
            facts.last_resort |= Some(&facts.keypackage_ref) == of.as_ref();
        }
    }
    assert_eq!(prunable(&records, Duration::ZERO).len(), 5);
}

/// The same story, and something that happens some seconds after its beginning.
fn clean_until(second: u64) -> Vec<Record> {
    let mut records = clean();
    let event = Event::PolicySet { reserve: ReservePolicy::Open };
    records.push(written(StreamId::Pool(pool("bob")), second, event, &[]));
    sealed(records)
}

/// The positions of the records that are no uploads and have a payload.
fn of_the_delivery(records: &[Record]) -> Vec<u64> {
    let is_it = |record: &&Record| {
        !record.payload.is_empty() && !matches!(record.envelope.event, Event::Uploaded(_))
    };
    records.iter().filter(is_it).map(|record| record.seq).collect()
}

#[test]
fn delivered_messages_and_withdrawn_packages_go_after_a_day() {
    let day = 86_400;
    let records = clean_until(3 * day);
    let delivery = of_the_delivery(&records);
    let may_go = prunable(&records, Duration::ZERO);
    let mut kept = delivery.clone();
    kept.retain(|seq| !may_go.contains(seq));
    let kinds = |seqs: &[u64]| -> Vec<&str> {
        let record = |seq: &u64| &records[usize::try_from(*seq).unwrap() - 1];
        seqs.iter().map(|seq| record(seq).envelope.event.name()).collect()
    };
    assert_eq!(kinds(&delivery), ["committed", "welcomed", "posted", "posted", "committed"]);
    // Dave has acknowledged the Welcome and the first message. His own waits for alice, and the Commit that
    // removes him for him.
    assert_eq!(kept, delivery[3..], "{delivery:?}");
    let withdrawn = records.iter().find_map(|record| match &record.envelope.event {
        Event::Revoked { keypackage_ref, .. } => Some(keypackage_ref.clone()),
        _ => None,
    });
    let upload = records.iter().find(|record| match &record.envelope.event {
        Event::Uploaded(facts) => Some(&facts.keypackage_ref) == withdrawn.as_ref(),
        _ => false,
    });
    assert!(may_go.contains(&upload.unwrap().seq));

    let whole = verified(&records);
    let pruned = verified(&without(&records, &may_go));
    assert_eq!((&pruned.findings[..], pruned.root), (&[][..], whole.root));
    assert_eq!(pruned.pruned, may_go.len() as u64);
    for record in records.iter().filter(|record| !record.payload.is_empty()) {
        let verdict = verified(&without(&records, &HashSet::from([record.seq])));
        let is_missed = !may_go.contains(&record.seq);
        assert_eq!(verdict.findings.len(), usize::from(is_missed), "record {}", record.seq);
    }
    let missed = verified(&without(&records, &kept.iter().copied().collect()));
    let what = format!("record {}: its payload is gone, and it waits in a mailbox.", kept[0]);
    assert_eq!(missed.findings[0].what, what);
}

#[test]
fn nothing_of_the_delivery_goes_before_its_time() {
    let day = 86_400;
    let delivered = |records: &[Record], keep| {
        let may_go = prunable(records, keep);
        of_the_delivery(records).into_iter().filter(|seq| may_go.contains(seq)).count()
    };
    assert_eq!(delivered(&clean_until(day), Duration::ZERO), 0, "the first was posted later");
    assert_eq!(delivered(&clean_until(day + 310), Duration::ZERO), 2, "a day after the Commit");
    assert_eq!(delivered(&clean_until(day + 320), Duration::ZERO), 3);
    let week = Duration::from_hours(7 * 24);
    assert_eq!(delivered(&clean_until(7 * day + 309), week), 0);
    assert_eq!(delivered(&clean_until(7 * day + 320), week), 3);
}
