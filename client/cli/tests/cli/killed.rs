//! The program, killed (-9) at any moment again and again, at the one who invites and at the one who is invited.
//! `just campaign` runs it large.

use std::{env, fs::File, io::Write, process::Stdio, thread, time::Duration};

use keypool_client::InvitationState;
use keypool_ledger::{Clock, GroupId, Hash, SystemClock};

use super::{
    chat::{chat, typed},
    members::{members, open, they_talk},
    service::{Service, run},
};

/// How many kills there are in CI, at least.
const KILLS: u64 = 10;
/// How many turns two homes live through at most.
const TURNS: u64 = 64;
/// Every how many turns nobody is killed, so that it is known how long one takes.
const MEASURED_EVERY: u64 = 16;
/// At how many packages a pool is filled.
const LOW: u64 = 8;

fn setting(name: &str, usual: u64) -> u64 {
    env::var(name).map_or(usual, |value| value.parse().unwrap())
}

/// A number below `end`, drawn by the seed.
fn draw(seed: u64, turn: u64, end: u64) -> u64 {
    let drawn = Hash::of(format!("{seed} {turn}").as_bytes());
    u64::from_le_bytes(drawn.as_bytes()[..8].try_into().unwrap()) % end
}

/// Has Alice make a group and invite Bob; returns how long that took, in milliseconds.
fn time_of_invitation(service: &Service, lines: &str) -> u64 {
    let begun = SystemClock.now();
    typed(service, "alice", lines);
    SystemClock.now().as_millis().saturating_sub(begun.as_millis()).max(1)
}

/// Starts somebody's chat with these lines, and kills it after a time. Returns whether it was still running.
fn is_killed(service: &Service, name: &str, lines: &str, after: Duration) -> bool {
    let said = service.folder.path().join(format!("{name}.stderr"));
    let mut command = chat(service, name);
    command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(File::create(&said).unwrap());
    let mut program = command.spawn().unwrap();
    program.stdin.take().unwrap().write_all(lines.as_bytes()).unwrap();
    thread::sleep(after);
    let is_running = program.try_wait().unwrap().is_none();
    program.kill().unwrap();
    program.wait().unwrap();
    let said = std::fs::read_to_string(said).unwrap();
    assert!(said.is_empty(), "{name}: {said}");
    is_running
}

/// Two homes that are killed for so many turns, and then not any more. Returns how often one was killed, and how many
/// invitations there were.
fn lived_through(seed: u64, turns: u64) -> (u64, u64) {
    let service = Service::start();
    typed(&service, "bob", "");
    let (mut killed, mut whole) = (0, 1);
    for turn in 0..turns {
        let invites = format!("/create g{turn}\n/invite bob\nhello\n");
        // The homes grow, and so does the time that a turn takes.
        if turn % MEASURED_EVERY == 0 {
            whole = time_of_invitation(&service, &invites);
            continue;
        }
        let after = Duration::from_millis(draw(seed, turn, whole));
        let (name, lines) = if turn % 2 == 0 { ("alice", &*invites) } else { ("bob", "/groups\n") };
        killed += u64::from(is_killed(&service, name, lines, after));
    }
    for name in ["alice", "bob", "alice"] {
        let said = typed(&service, name, "");
        assert!(said.ends_with("[0]"), "{name}: {said}");
    }
    (killed, check_homes(&service))
}

/// Everyone invited is in, the audits find nothing, and the pools are filled. Returns how many invitations there are.
fn check_homes(service: &Service) -> u64 {
    let [alice, bob] = ["alice", "bob"].map(|name| open(service, name));
    let invitations = alice.invitations().unwrap();
    for invitation in &invitations {
        let (group, state) = (&invitation.group, &invitation.state);
        assert_eq!(*state, InvitationState::Joined, "{group}");
        assert_eq!(members(&alice, group), members(&bob, group), "{group}");
    }
    let is_invited = |group: &GroupId| invitations.iter().any(|it| it.group == *group);
    assert!(bob.groups().unwrap().iter().all(is_invited));
    run(they_talk(&alice, &bob, &invitations.last().unwrap().group));
    for client in [&alice, &bob] {
        assert_eq!(client.audit().unwrap().findings, []);
        let left = run(client.status()).unwrap().counts.available;
        assert!(LOW < left, "{left} packages");
    }
    invitations.len() as u64
}

#[test]
#[expect(clippy::print_stderr, reason = "a long run says its figures, and a failure its seed")]
fn killed_again_and_again_everyone_invited_is_in_and_the_pools_are_full() {
    let (kills, first) = (setting("KEYPOOL_APP_KILLS", KILLS), setting("KEYPOOL_SEED", 1));
    let (mut killed, mut invitations) = (0, 0);
    for seed in first.. {
        eprintln!("KEYPOOL_SEED={seed}: {killed} killed so far, {invitations} invitations");
        if kills <= killed {
            break;
        }
        let (more, invited) = lived_through(seed, (2 * kills).min(TURNS));
        (killed, invitations) = (killed + more, invitations + invited);
    }
    assert!(0 < invitations);
}
