//! Exports, as an auditor reads them.

use std::{fs, path::Path};

use keypool_auditor::{export::ExportWriter, source::Source, verify::verify};
use keypool_ledger::{EventEnvelope, RawRecord, codec};

use super::{
    base_journal::{base_journals, temporary_dir},
    edits::edit,
    envelopes::RecordFolder,
    input::InputReader,
};

/// How many bytes an envelope or a payload of an input has at most.
const PART_BYTES_MAX: usize = 1024;
/// How many records an export of an input has at most.
const RECORDS_MAX: usize = 64;

/// Reads an export, verifies it and folds its records. The first byte says how it is made: the input itself, records
/// with right hashes, or the export of a journal with changes.
pub fn export(bytes: &[u8]) {
    let mut input = InputReader::new(bytes);
    let (export, is_changed) = match input.number(2) {
        0 => (input.rest().to_vec(), true),
        1 => (written(&mut input), true),
        _ => changed(&mut input),
    };
    let dir = temporary_dir();
    let path = dir.path().join("log.export");
    fs::write(&path, &export).unwrap();
    let records = read(&path);
    if !is_changed {
        assert_eq!(records, Some(base_journals()[0].records.len() as u64));
    }
}

/// Reads an export; returns how many records it has, if there is no damage.
fn read(path: &Path) -> Option<u64> {
    let source = Source::open(path).ok()?;
    let report = verify(&source, &[], &mut |_| {});
    let mut folder = RecordFolder::default();
    let end = source.read(&mut |raw, envelope| {
        assert!(raw.offset <= source.bytes(), "a record stands in the file");
        folder.take(envelope, raw.payload)
    });
    folder.finish();
    let manifest = end.ok()?.manifest.expect("an export that was read to its end has a manifest");
    assert_eq!(manifest.records, report.records, "the manifest counts the records");
    Some(report.records)
}

/// The export of a journal, with changes; and whether anything has changed.
fn changed(input: &mut InputReader<'_>) -> (Vec<u8>, bool) {
    let mut writer = ExportWriter::new(Vec::new()).unwrap().with_blocks_of(1024);
    for record in &base_journals()[0].records {
        let raw = raw(record.seq, &record.envelope_bytes, &record.payload);
        writer.add(&raw, &record.envelope).unwrap();
    }
    let (_, mut export) = writer.finish().unwrap();
    let is_changed = edit(input, &mut export);
    (export, is_changed)
}

/// An export of the records that an input holds, with right hashes and a right manifest.
fn written(input: &mut InputReader<'_>) -> Vec<u8> {
    let mut writer = ExportWriter::new(Vec::new()).unwrap().with_blocks_of(input.number(512));
    let mut seq = input.number(4) as u64;
    let base = &base_journals()[1].records;
    for _ in 0..RECORDS_MAX {
        if input.is_empty() {
            break;
        }
        seq = seq.wrapping_add(input.number(2) as u64);
        let (mut envelope_bytes, payload) = if input.flag() {
            let record = &base[input.number(base.len() - 1)];
            (record.envelope_bytes.clone(), record.payload.as_slice())
        } else {
            (input.bytes(PART_BYTES_MAX).to_vec(), input.bytes(PART_BYTES_MAX))
        };
        edit(input, &mut envelope_bytes);
        let envelope: EventEnvelope = match codec::decode(&envelope_bytes) {
            Ok(envelope) => envelope,
            Err(_) => base[0].envelope.clone(),
        };
        writer.add(&raw(seq, &envelope_bytes, payload), &envelope).unwrap();
    }
    let (_, export) = writer.finish().unwrap();
    export
}

fn raw<'a>(seq: u64, envelope_bytes: &'a [u8], payload: &'a [u8]) -> RawRecord<'a> {
    RawRecord { seq, envelope_bytes, payload, file: Path::new(""), offset: 0 }
}
