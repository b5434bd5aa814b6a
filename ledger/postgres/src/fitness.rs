//! The demands on a PostgreSQL server, without which it is no place for a log.

use tokio_postgres::Client;

/// The oldest version that is used: the first whose autovacuum cares for tables that only grow.
const VERSION_MIN: i32 = 130_000;

/// The settings of a server that a log depends on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ServerFacts {
    /// The version, as `server_version_num` has it.
    pub(crate) version: i32,
    /// Whether the server is a standby.
    pub(crate) is_standby: bool,
    /// Whether a commit is on the disk before it is answered.
    pub(crate) fsync: String,
    /// Whether a torn page can be repaired.
    pub(crate) full_page_writes: String,
    /// For which confirmations a commit waits.
    pub(crate) synchronous_commit: String,
    /// The standbys that a commit waits for.
    pub(crate) synchronous_standby_names: String,
}

impl ServerFacts {
    /// Reads the settings of a server.
    pub(crate) async fn read(client: &Client) -> Result<Self, tokio_postgres::Error> {
        let asked = "SELECT current_setting('server_version_num')::int, pg_is_in_recovery(), \
                     current_setting('fsync'), current_setting('full_page_writes'), \
                     current_setting('synchronous_commit'), current_setting('synchronous_standby_names')";
        let row = client.query_one(asked, &[]).await?;
        Ok(Self {
            version: row.try_get(0)?,
            is_standby: row.try_get(1)?,
            fsync: row.try_get(2)?,
            full_page_writes: row.try_get(3)?,
            synchronous_commit: row.try_get(4)?,
            synchronous_standby_names: row.try_get(5)?,
        })
    }

    /// Checks that the server keeps each acknowledged row, on as many other servers as are demanded.
    pub(crate) fn check(&self, server: &str, standbys: usize) -> Result<(), String> {
        let asked = standbys_asked(&self.synchronous_standby_names);
        let (version, names) = (self.version, &self.synchronous_standby_names);
        let off = |setting: &str, effect: &str| {
            format!(
                "the PostgreSQL server at {server} has `{setting} = off`, and {effect}: set it to `on` in \
                 postgresql.conf of every server, and restart them"
            )
        };
        if version < VERSION_MIN {
            return Err(format!(
                "the PostgreSQL server at {server} has version {}, and {} is the oldest that is supported: update it",
                version / 10_000,
                VERSION_MIN / 10_000
            ));
        }
        if self.fsync != "on" {
            return Err(off("fsync", "loses acknowledged events when the power fails"));
        }
        if self.full_page_writes != "on" {
            return Err(off("full_page_writes", "cannot repair pages that were torn by a crash"));
        }
        if !["on", "remote_apply"].contains(&self.synchronous_commit.as_str()) {
            return Err(format!(
                "the PostgreSQL server at {server} keeps `synchronous_commit = {}` although this session sets `on`: \
                 let the role set it",
                self.synchronous_commit
            ));
        }
        if asked < standbys {
            return Err(format!(
                "the PostgreSQL server at {server} waits for {asked} synchronous standbys, and {standbys} must confirm \
                 each write: set synchronous_standby_names, which is {names:?}, on every server, such as `ANY \
                 {standbys} (*)`, and reload them"
            ));
        }
        Ok(())
    }
}

/// Reads how many standbys `synchronous_standby_names` asks for.
pub(crate) fn standbys_asked(names: &str) -> usize {
    let names = names.trim();
    if names.is_empty() {
        return 0;
    }
    // `ANY 2 (a, b)`, `FIRST 2 (a, b)`, `2 (a, b)`; a list without a number asks for the first of it.
    let number = names
        .split_once('(')
        .filter(|(before, _)| !before.contains(['"', ',']))
        .and_then(|(before, _)| before.split_whitespace().next_back())
        .and_then(|word| word.parse().ok());
    number.unwrap_or(1)
}

#[cfg(test)]
mod tests {
    use super::{ServerFacts, standbys_asked};

    #[test]
    fn the_number_of_standbys_is_read_in_every_form() {
        for (names, asked) in [
            ("", 0),
            ("  ", 0),
            ("*", 1),
            ("a", 1),
            ("a, b", 1),
            ("\"a(2\", b", 1),
            ("b, \"a(2\"", 1),
            ("2 (a, b)", 2),
            ("FIRST 1 (a, b)", 1),
            ("first 3(a,b,c,d)", 3),
            ("ANY 2 (\"x(9\", *)", 2),
        ] {
            assert_eq!(standbys_asked(names), asked, "{names}");
        }
    }

    #[test]
    fn servers_that_may_lose_what_they_acknowledge_are_refused() {
        let fit = ServerFacts {
            version: 130_000,
            is_standby: false,
            fsync: "on".to_owned(),
            full_page_writes: "on".to_owned(),
            synchronous_commit: "remote_apply".to_owned(),
            synchronous_standby_names: "ANY 1 (*)".to_owned(),
        };
        assert_eq!(fit.check("a:5432", 1), Ok(()));
        let off = || "off".to_owned();
        for (facts, told) in [
            (ServerFacts { version: 120_020, ..fit.clone() }, "has version 12, and 13"),
            (ServerFacts { fsync: off(), ..fit.clone() }, "`fsync = off`"),
            (ServerFacts { full_page_writes: off(), ..fit.clone() }, "`full_page_writes = off`"),
            (
                ServerFacts { synchronous_commit: off(), ..fit.clone() },
                "`synchronous_commit = off`",
            ),
            (
                ServerFacts { synchronous_standby_names: String::new(), ..fit.clone() },
                "waits for 0 synchronous standbys, and 1 must",
            ),
        ] {
            let why = facts.check("a:5432", 1).unwrap_err();
            assert!(why.contains(told) && why.contains("a:5432"), "{why}");
        }
        let why = fit.check("a:5432", 2).unwrap_err();
        assert!(why.contains("waits for 1 synchronous standbys, and 2 must"), "{why}");
    }
}
