//! The tests of the program `keypool`, in one binary.

#[cfg(test)]
mod cli {
    mod audit_command;
    mod chat;
    mod chat_invitations;
    mod command_line;
    mod devices;
    mod homes;
    mod identities;
    mod killed;
    mod linking;
    mod recovery;

    #[allow(dead_code, reason = "each test program uses other helpers of these")]
    #[path = "../../../tests/client/members.rs"]
    mod members;

    #[allow(dead_code, reason = "each test program uses other helpers of these")]
    #[path = "../../../tests/client/people.rs"]
    mod people;

    #[path = "../../../tests/client/pool_news.rs"]
    mod pool_news;

    #[allow(dead_code, unused_imports, reason = "each test program uses other helpers of these")]
    #[path = "../../../tests/client/service.rs"]
    mod service;

    #[allow(dead_code, reason = "each test program uses other helpers of these")]
    #[path = "../../../tests/client/support.rs"]
    mod support;
}
