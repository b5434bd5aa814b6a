//! The end of the stream, which a server asks the engine for.

use keypool_ledger::ReplicaHealth;

use super::{MemoryStream, Node, StreamFaults};
use crate::ledger::support::in_the_end;

#[test]
fn the_engine_says_once_in_a_while_whether_the_stream_ends_before_a_position() {
    let engine = MemoryStream::with_seed(1);
    let writer = Node::new(&engine, StreamFaults::Never);
    for n in 1..=2 {
        writer.append(n).unwrap();
    }
    for (position, ends) in [(1, false), (2, false), (3, true), (9, true)] {
        let node = Node::new(&engine, StreamFaults::Never);
        node.wait_for(2);
        assert_eq!(node.log.ends_before(position).unwrap(), ends, "{position}");
        assert!(!node.log.ends_before(9).unwrap(), "it was asked a moment ago");
        assert_eq!(node.log.health(), ReplicaHealth::Following, "{position}");
    }
    let node = Node::new(&engine, StreamFaults::Never);
    node.connection.cut(true);
    assert!(node.log.ends_before(9).is_err());
}

#[test]
fn a_stream_that_cannot_be_reached_is_told_until_it_is_followed_again() {
    let (engine, told) = (MemoryStream::with_seed(1), "the replicated stream cannot be reached");
    let node = Node::new(&engine, StreamFaults::Never);
    node.connection.cut(true);
    let why = in_the_end(|| match node.log.health() {
        ReplicaHealth::Interrupted { why } => Ok(why),
        other => Err(format!("{other:?}")),
    });
    assert!(why.starts_with(told), "{why}");
    node.connection.cut(false);
    in_the_end(|| match node.log.health() {
        ReplicaHealth::Following => Ok(()),
        other => Err(format!("{other:?}")),
    });
    node.append(1).unwrap();
}

#[test]
fn each_growth_is_told_once() {
    let node = Node::new(&MemoryStream::with_seed(1), StreamFaults::Never);
    (1..=3).for_each(|n| drop(node.append(n).unwrap()));
    let Node { log, growing, .. } = node;
    drop(log);
    assert_eq!(growing.iter().count(), 3, "own frames that the engine delivers too are no growth");
}
