//! The tests of the client, in one binary.

#[cfg(test)]
mod client {
    mod answers;
    mod attempts;
    mod bundles;
    mod clusters;
    mod contacts;
    mod copies;
    mod crashes;
    mod credentials;
    mod crowds;
    mod delivery;
    mod devices;
    mod doctor;
    mod drift;
    mod forgeries;
    mod forgotten;
    mod impostors;
    mod interop;
    mod invitations;
    mod keystore;
    mod last_resort;
    mod leaving;
    mod listening;
    mod members;
    mod membership;
    mod moved_clock;
    mod outcomes;
    mod owner_audit;
    mod people;
    mod pool;
    mod pool_news;
    mod refresh;
    mod refresh_again;
    mod rotation;
    mod sealing;
    mod sendable;
    #[allow(dead_code, reason = "each test program uses other helpers of these")]
    mod service;
    mod set_back;
    mod storage;
    mod suites;
    mod support;
    mod told;
    mod transport;
    mod tunnels;
    mod unfinished;
}
