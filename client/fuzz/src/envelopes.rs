//! The stored form of an envelope, and the folds of its event.

use std::ops::ControlFlow;

use keypool_auditor::{
    invariants::{Auditor, InvariantParams},
    replay::{Fold, Keep},
};
use keypool_ledger::{Event, EventEnvelope, Names, codec};

use super::input::InputReader;

/// How many bytes an envelope of an input has at most.
const ENVELOPE_BYTES_MAX: usize = 1024;

/// Decodes an envelope. One that is decoded is encoded to bytes of the same envelope, and so is its JSON form. With
/// a first byte of `0xff` the input is a row of envelopes and payloads, which are folded.
pub fn envelope(bytes: &[u8]) {
    if let Some(rest) = bytes.strip_prefix(&[0xff]) {
        return fold(&mut InputReader::new(rest));
    }
    let Ok(envelope) = codec::decode(bytes) else { return };
    check(&envelope);
}

fn check(envelope: &EventEnvelope) {
    let again = codec::encode(envelope).expect("a decoded envelope can be encoded");
    let read = codec::decode(&again).expect("an encoded envelope can be decoded");
    assert_eq!(EventEnvelope { schema: read.schema, ..envelope.clone() }, read);
    assert_eq!(codec::encode(&read).ok(), Some(again), "an envelope has one form");
    assert_eq!(envelope.stream.to_string().parse(), Ok(envelope.stream.clone()));
    let json = serde_json::to_vec(&envelope.event).expect("an event is JSON");
    let event: Event = serde_json::from_slice(&json).expect("the JSON of an event can be read");
    assert_eq!(event, envelope.event);
}

/// Folds the records of an input as an auditor does, with and without the names that they hide.
fn fold(input: &mut InputReader<'_>) {
    let mut folder = RecordFolder::default();
    while !input.is_empty() {
        let Ok(envelope) = codec::decode(input.bytes(ENVELOPE_BYTES_MAX)) else { break };
        check(&envelope);
        if folder.take(envelope, input.bytes(ENVELOPE_BYTES_MAX)).is_break() {
            break;
        }
    }
    folder.finish();
}

/// Folds records by the rules and by the invariants, which must read any events.
pub(crate) struct RecordFolder {
    seq: u64,
    names: Names,
    pools: Fold,
    auditor: Auditor,
}

impl Default for RecordFolder {
    fn default() -> Self {
        Self {
            seq: 0,
            names: Names::default(),
            pools: Fold::keeping(Keep::All),
            auditor: Auditor::new(InvariantParams::STANDARD),
        }
    }
}

impl RecordFolder {
    pub(crate) fn take(&mut self, mut envelope: EventEnvelope, payload: &[u8]) -> ControlFlow<()> {
        self.seq += 1;
        self.names.see(&envelope, payload);
        self.names.reveal(&mut envelope, payload);
        // An event that the lifecycle forbids is a finding.
        let _ = self.pools.take(self.seq, &envelope);
        self.auditor.see(self.seq, &envelope);
        ControlFlow::Continue(())
    }

    pub(crate) fn finish(self) {
        let _ = self.auditor.finish();
        for state in self.pools.pools().into_values() {
            let counts = state.counts();
            assert!(counts.available <= self.seq, "a pool has no more packages than events");
        }
    }
}
