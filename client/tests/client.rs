//! The tests of the client, in one binary.

#[cfg(test)]
mod client {
    mod command_line;
    mod crashes;
    mod delivery;
    mod forgeries;
    mod interop;
    mod invitations;
    mod membership;
    mod people;
    mod pool;
    mod refresh;
    mod service;
    mod storage;
    mod support;
    mod unfinished;
}
