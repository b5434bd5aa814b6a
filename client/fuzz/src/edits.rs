//! Changes to the bytes of a file, as an input says them.

use super::input::InputReader;

/// How many edits an input makes at most.
const EDITS_MAX: usize = 16;
/// How many bytes an edit writes at most.
const WRITTEN_MAX: usize = 64;

/// Makes the edits that an input holds. Returns whether a byte has changed.
pub(crate) fn edit(input: &mut InputReader<'_>, bytes: &mut Vec<u8>) -> bool {
    let before = bytes.clone();
    for _ in 0..input.number(EDITS_MAX) {
        if input.is_empty() {
            break;
        }
        edit_once(input, bytes);
    }
    *bytes != before
}

fn edit_once(input: &mut InputReader<'_>, bytes: &mut Vec<u8>) {
    let kind = input.number(5);
    let at = input.number(bytes.len());
    match kind {
        0 => {
            if let Some(byte) = bytes.get_mut(at) {
                *byte ^= 1 << input.number(7);
            }
        }
        1 => bytes.truncate(at),
        2 => {
            let new = input.bytes(WRITTEN_MAX);
            bytes.splice(at..at, new.iter().copied());
        }
        3 => {
            let new = input.bytes(WRITTEN_MAX);
            let end = bytes.len().min(at + new.len());
            bytes.splice(at..end, new.iter().copied());
        }
        4 => {
            let end = bytes.len().min(at + 1 + input.number(bytes.len()));
            bytes[at..end].fill(0);
        }
        _ => {
            let end = bytes.len().min(at + 1 + input.number(bytes.len()));
            bytes.drain(at..end);
        }
    }
}
