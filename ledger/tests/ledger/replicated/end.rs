//! The end of the stream, which a server asks the engine for.

use super::{MemoryStream, Node, StreamFaults};

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
    }
    let node = Node::new(&engine, StreamFaults::Never);
    node.connection.cut(true);
    assert!(node.log.ends_before(9).is_err());
}
