//! The tests of the client, in one binary.

#[cfg(test)]
mod client {
    mod interop;
    mod membership;
    mod pool;
    mod storage;
    mod support;
}
