//! The tests of the client, in one binary.

#[cfg(test)]
mod client {
    mod attempts;
    mod command_line;
    mod crashes;
    mod delivery;
    mod doctor;
    mod forgeries;
    mod interop;
    mod invitations;
    mod membership;
    mod people;
    mod pool;
    mod refresh;
    mod sealing;
    mod service;
    mod storage;
    mod support;
    mod unfinished;
}
