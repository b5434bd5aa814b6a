//! The tests of the client, in one binary.

#[cfg(test)]
mod client {
    mod attempts;
    mod audit_command;
    mod chat;
    mod command_line;
    mod contacts;
    mod crashes;
    mod crowds;
    mod delivery;
    mod devices;
    mod doctor;
    mod drift;
    mod forgeries;
    mod interop;
    mod invitations;
    mod last_resort;
    mod leaving;
    mod listening;
    mod membership;
    mod moved_clock;
    mod owner_audit;
    mod people;
    mod pool;
    mod refresh;
    mod refresh_again;
    mod rotation;
    mod sealing;
    mod sendable;
    mod service;
    mod storage;
    mod suites;
    mod support;
    mod told;
    mod tunnels;
    mod unfinished;
}
