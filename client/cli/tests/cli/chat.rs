//! The chat, as it is typed: its output, and its recovery from failures.

use std::{
    io::{BufRead, BufReader, Read, Write},
    path::Path,
    process::{Child, ChildStdin, Command, Output, Stdio},
    sync::mpsc::{self, Receiver},
    thread,
};

use insta::assert_snapshot;
use keypool_client::{LocalStore, PoolConfig};
use keypool_ledger::Clock;

use super::{
    command_line::words,
    members::open,
    people::reserve,
    pool_news::hears,
    service::{Service, run},
    support::{PATIENCE, copy, lose_a_package},
};

pub(crate) fn chat(service: &Service, name: &str) -> Command {
    chat_at(service, name, &service.tunnel.url())
}

fn chat_at(service: &Service, name: &str, server: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_keypool"));
    command.args(["chat", "--user", name, "--server", server, "--home"]);
    command.arg(service.folder.path().join(name));
    command
}

/// Somebody's chat, with its standard input and output in the test's hands.
pub(crate) struct Person {
    program: Child,
    keyboard: Option<ChildStdin>,
    lines: Receiver<String>,
}

impl Person {
    pub(crate) fn opens(command: &mut Command) -> Self {
        let mut program =
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("keypool starts");
        let output = BufReader::new(program.stdout.take().unwrap());
        let (line, lines) = mpsc::channel();
        thread::spawn(move || {
            output.lines().map_while(Result::ok).try_for_each(|it| line.send(it))
        });
        let keyboard = program.stdin.take();
        Self { program, keyboard, lines }
    }

    pub(crate) fn says(&mut self, line: &str) {
        writeln!(self.keyboard.as_mut().unwrap(), "{line}").unwrap();
    }

    /// The next line that holds this text.
    pub(crate) fn reads(&self, text: &str) -> String {
        let mut before = Vec::new();
        loop {
            let line = self.lines.recv_timeout(PATIENCE);
            let line = line.unwrap_or_else(|_| panic!("never read: {text}, after {before:#?}"));
            if line.contains(text) {
                return line;
            }
            before.push(line);
        }
    }

    /// The lines up to the next one that holds this text.
    pub(crate) fn reads_to(&self, text: &str) -> String {
        let mut lines = Vec::new();
        loop {
            lines.push(self.reads(""));
            if lines.last().is_some_and(|line| line.contains(text)) {
                return lines.join("\n");
            }
        }
    }

    /// Ends standard input. Returns the rest of the output, and the code.
    pub(crate) fn ends(mut self) -> (Vec<String>, i32) {
        drop(self.keyboard.take());
        let lines = self.lines.iter().collect();
        (lines, self.program.wait().unwrap().code().unwrap())
    }

    fn dies(mut self) -> Vec<String> {
        self.program.kill().unwrap();
        self.program.wait().unwrap();
        self.lines.iter().collect()
    }
}

/// The output of a chat for these typed lines.
pub(crate) fn typed(service: &Service, name: &str, lines: &str) -> String {
    told(played(&mut chat(service, name), lines))
}

pub(crate) fn played(command: &mut Command, lines: &str) -> Output {
    let command = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut program = command.spawn().unwrap();
    // A program that has ended already reads nothing.
    let _ = program.stdin.take().unwrap().write_all(lines.as_bytes());
    program.wait_with_output().unwrap()
}

fn told(output: Output) -> String {
    let text =
        String::from_utf8(output.stdout).unwrap() + &String::from_utf8(output.stderr).unwrap();
    let is_greeting =
        |line: &&str| line.contains("; your keys are in") || line.starts_with("/help lists");
    let lines: Vec<&str> = text.lines().filter(|line| !is_greeting(line)).collect();
    format!("{}\n[{}]", lines.join("\n"), output.status.code().unwrap())
}

#[test]
fn a_group_is_made_in_another_ciphersuite_of_the_pool() {
    let service = Service::start();
    let mut alice = Person::opens(chat(&service, "alice").args(["--ciphersuites", "1,2"]));
    alice.says("/create friday evening suite=2");
    alice.reads("friday evening is made");
    alice.says("/create monday suite=9");
    alice.reads("ciphersuite 9 is not one the device can use");
    alice.ends();
    let alice = open(&service, "alice");
    let groups = alice.membership().groups().unwrap();
    assert_eq!(groups.len(), 1);
    assert_eq!(alice.membership().ciphersuite(&groups[0]).unwrap(), 2);
    let suites = run(alice.status()).unwrap().counts.suites;
    assert_eq!(suites.iter().map(|suite| suite.ciphersuite).collect::<Vec<_>>(), [1, 2]);
}

#[test]
fn every_command_is_answered_and_so_is_bad_input() {
    let service = Service::start();
    typed(&service, "bob", "");
    assert_snapshot!(
        typed(
            &service,
            "alice",
            "hello?\n/list\n/leave\n/groups\n/create\n/create friday\nanybody?\n/invite\n\
             /invite bob carol b/c/d !!\n/invite bob\n/invite alice\n/list\n/groups\n/create work\n\
             /groups\n/switch friday\n/switch nowhere\n/remove carol\n/remove bob\n/list\n/leave\n\
             /groups\n/history ffff\n/refresh\n/nonsense\n/\n\u{1b}[31m\n"
        ),
        @r#"
        you are in no group; /create NAME makes one, /groups lists yours
        you are in no group; /create NAME makes one, /groups lists yours
        you are in no group; /create NAME makes one, /groups lists yours
        you are in no group; /create NAME makes one, /groups lists yours
        what is the group called? /create NAME
        friday is made; /invite USER… brings people in
        nobody else is here yet; /invite USER… first
        whom? /invite USER…
        bob is in friday; they see what is said from now on
        b/c/d was not invited: device "c/d" is not valid: 1 to 64 characters of A-Z a-z 0-9 . _ @ : + -
        !! was not invited: user "!!" is not valid: 1 to 128 characters of A-Z a-z 0-9 . _ @ : + -
        carol is not registered at this server; check the name
        bob is here already
        alice is here already
        in friday: alice (you), bob
        1 friday: 2 members <- here
        work is made; /invite USER… brings people in
        1 friday: 2 members
        2 work: 1 member <- here
        there is no group "nowhere"; /groups lists them
        carol is not in friday; /list says who is
        bob is out of friday
        in friday: alice (you)
        you have left friday
        1 work: 1 member <- here
        no KeyPackage here has a reference that begins with ffff
        pool: healthy [################################] 32 of 32 available, 1 of last resort, 0 reserved, 0 spent
        there is no /nonsense; /help lists the commands
        there is no /; /help lists the commands
        nobody else is here yet; /invite USER… first
        [0]
        "#
    );
}

#[test]
fn the_help_lists_the_commands() {
    let service = Service::start();
    assert_snapshot!(typed(&service, "alice", "/help\n"), @"
    /create NAME     make a group and go to it; NAME suite=2 for one of that ciphersuite
    /invite USER…    invite people to this group, also while they are away; USER/DEVICE for one device
    /invitations     whom you have invited, and who has joined
    /groups          your groups, and what you have not read
    /switch NAME     go to another group, by its name or its number
    /list            who is in this group
    /remove USER…    remove people from this group
    /leave           leave this group
    /block USER…     let people neither invite you nor write to you; they are not told
    /unblock USER…   let them again
    /verify USER     compare the safety number with USER; if it is the same: /verify USER yes
    /accept USER     see how the keys of USER have changed; to take the new ones: /accept USER yes
    /accept          write to this group although the keys of members marked (!) are not known as theirs
    /devices USER    the devices of USER and their keys; without USER, yours
    /link WORD       link a new device by the word that its chat shows
    /pool            how many KeyPackages are left for those who invite you
    /refresh         refill the pool now
    /history REF     what happened to a KeyPackage; without REF, to all of them
    /help            this
    /quit            end; what was not sent yet goes out next time
    Everything else is said to the group. Begin with // to say something that begins with /.
    [0]
    ");
}

#[test]
fn what_has_drifted_apart_is_said() {
    let service = Service::start();
    typed(&service, "alice", "/refresh\n");
    let home = service.folder.path().join("alice");
    lose_a_package(&LocalStore::open(&home, &"alice".parse().unwrap()).unwrap());
    let said = typed(&service, "alice", "/refresh\n");
    let sentence = "1 package that this device does not answer for was withdrawn from the server";
    assert_eq!(said.matches(sentence).count(), 1, "{said}");
}

#[test]
fn somebody_else_speaks_for_the_name() {
    let service = Service::start();
    typed(&service, "bob", "");
    let mut impostor = Command::new(env!("CARGO_BIN_EXE_keypool"));
    impostor
        .args(["chat", "--user", "bob", "--server", &service.tunnel.url(), "--home"])
        .arg(service.folder.path().join("impostor"));
    let told = told(played(&mut impostor, "/list\n"));
    // Its key is another one each time.
    let is_key = |word: &&str| word.len() == 43;
    let key = told.split([' ', '/', '`', '\n']).find(is_key).unwrap_or_default();
    assert_snapshot!(words(&told.replace(key, "KEY")), @"
    bob has a device already, and bob/main is not linked to it
    1. type in the chat of a device of bob: /link bob/main/KEY
    2. type here the /link line that it shows then
    if no device is left: /quit, and `keypool recover` with the 24 words
    this device is not linked yet: type /link and the word that the other device shows, or /quit
    error: identity_bound: the name is bound to another key, or the key to another name. Use the key that registered first, or another name; an operator can tell who holds it. (request ID)
    if bob is yours: type `keypool vouch main KEY` on a registered device of bob, and here what it prints
    [1]
    ");
}

#[test]
fn what_cannot_be_started_is_said_in_a_sentence() {
    let service = Service::start();
    let bad = |arguments: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_keypool"));
        command.arg("chat").args(arguments).env_remove("KEYPOOL_HOME").env_remove("KEYPOOL_USER");
        told(played(&mut command, ""))
    };
    let home = service.folder.path().join("h");
    let home = home.to_str().unwrap();
    let told = [
        bad(&[]),
        bad(&["--user", "a b", "--home", home]),
        bad(&["--user", "alice", "--home", home, "--target", "0"]),
        bad(&["--user", "alice", "--home", home, "--target", "10", "--low", "10"]),
        bad(&["--user", "alice", "--home", home, "--server", "nowhere"]),
    ];
    assert_snapshot!(told.join("\n\n"), @r#"
    error: whose device is it? Say --user NAME
    [1]

    error: user "a b" is not valid: 1 to 128 characters of A-Z a-z 0-9 . _ @ : + -
    [1]

    error: a target of 0 packages is not between 1 and the cap of 64
    [1]

    error: a low watermark of 10 is not below the target of 10 packages
    [1]

    error: "nowhere" is no address of a server; one looks like http://127.0.0.1:8080, with no path, query or user name
    [1]
    "#);
}

#[test]
fn a_server_that_is_gone_is_said_once_and_what_was_written_goes_out_later() {
    let service = Service::start();
    typed(&service, "bob", "");
    typed(&service, "alice", "/create friday\n/invite bob\n");
    // Nobody listens there.
    let mut away = Person::opens(&mut chat_at(&service, "alice", "http://127.0.0.1:1"));
    away.reads("cannot be reached");
    away.says("are you there?");
    away.reads("the message goes out when it does");
    away.says("/list");
    away.reads("in friday: alice (you), bob");
    let (rest, code) = away.ends();
    assert_eq!(code, 0);
    assert!(!rest.iter().any(|line| line.contains("cannot be reached")), "{rest:?}");
    let back = typed(&service, "alice", "/list\n");
    assert!(back.ends_with("in friday: alice (you), bob\n[0]"), "{back}");
    let bob = typed(&service, "bob", "/list\n");
    assert_eq!(bob.matches("alice: are you there?").count(), 1, "{bob}");
}

/// A proxy before the server is busy while a new device registers.
#[test]
fn a_proxy_that_means_later_does_not_end_a_chat_that_starts() {
    let service = Service::start();
    for number in 0..4 {
        service.tunnel.forge(number, 429, "<html>too many requests</html>");
    }
    let mut alice = Person::opens(&mut patient_chat(&service, "alice"));
    alice.says("/pool");
    while !alice.reads("").contains("32 of 32 available") {
        alice.says("/pool");
    }
    assert_eq!(alice.ends().1, 0);
}

/// Bob is killed again and again while Alice writes. Messages that he reads twice are marked.
#[test]
fn whoever_is_killed_at_any_moment_reads_everything_in_order_and_nothing_twice() {
    const MESSAGES: usize = 120;
    let service = Service::start();
    typed(&service, "bob", "");
    typed(&service, "alice", "/create friday\n/invite bob\n");
    let mut alice = Person::opens(&mut chat(&service, "alice"));
    let mut read: Vec<String> = Vec::new();
    for round in 0..12 {
        for number in 0..MESSAGES / 12 {
            alice.says(&format!("message {}", round * (MESSAGES / 12) + number));
        }
        let bob = Person::opens(&mut chat(&service, "bob"));
        // Now here, now there: by how far he gets, and not by the clock.
        let first = if round % 3 == 0 { Vec::new() } else { vec![bob.reads("message")] };
        read.extend(first);
        read.extend(bob.dies());
    }
    alice.says("the end");
    alice.says("/list");
    alice.reads("in friday");
    let mut bob = Person::opens(&mut chat(&service, "bob"));
    bob.says("/list");
    loop {
        let line = bob.reads("");
        let is_last = line.contains("the end");
        read.push(line);
        if is_last {
            break;
        }
    }
    let heard = read.iter().filter_map(|line| line.strip_prefix("alice: message "));
    let once: Vec<usize> = heard.map(|number| number.parse().unwrap()).collect();
    let again = read.iter().filter_map(|line| {
        line.strip_prefix("(perhaps shown before) alice: message ")?.parse::<usize>().ok()
    });
    let mut all = once.clone();
    all.extend(again);
    all.sort_unstable();
    all.dedup();
    assert_eq!(all, (0..MESSAGES).collect::<Vec<_>>(), "nothing is lost");
    assert!(once.is_sorted() && once.windows(2).all(|pair| pair[0] != pair[1]), "{once:?}");
    drop(alice.ends());
}

/// Alice is killed while she sends; her messages by then go out once or not at all.
#[test]
fn whoever_is_killed_while_sending_sends_nothing_twice_and_the_group_goes_on() {
    let service = Service::start();
    typed(&service, "bob", "");
    typed(&service, "alice", "/create friday\n/invite bob\n");
    for round in 0..8 {
        let mut alice = Person::opens(&mut chat(&service, "alice"));
        for number in 0..5 {
            alice.says(&format!("{round}-{number}"));
        }
        // Some of them are on their way by now.
        alice.says("/list");
        if round % 2 == 0 {
            alice.reads("in friday");
        }
        alice.dies();
    }
    typed(&service, "alice", "the end\n");
    let bob = typed(&service, "bob", "/list\n");
    // His input ends at once: what the mailbox has given him by then and he has not been shown is shown at the
    // end, marked, because nobody can say whether it was.
    let heard: Vec<&str> = bob.lines().filter_map(said_by_alice).collect();
    assert_eq!(heard.last(), Some(&"the end"), "{bob}");
    let mut unique = heard.clone();
    unique.sort_unstable();
    unique.dedup();
    assert_eq!(unique.len(), heard.len(), "{heard:?}");
    for round in [0, 2, 4, 6] {
        for number in 0..5 {
            assert!(heard.contains(&format!("{round}-{number}").as_str()), "{heard:?}");
        }
    }
}

/// Alice's text in a line, if it is hers.
fn said_by_alice(line: &str) -> Option<&str> {
    line.strip_prefix("(perhaps shown before) ").unwrap_or(line).strip_prefix("alice: ")
}

/// The disk takes no more than some blocks: the chat ends with a sentence, and loses nothing it has told.
#[test]
fn a_disk_that_is_full_is_said_in_a_sentence() {
    let service = Service::start();
    typed(&service, "bob", "");
    typed(&service, "alice", "/create friday\n/invite bob\n");
    let size = size_of_largest(&service.folder.path().join("alice"));
    let mut limited = Command::new("bash");
    limited
        .args(["-c", "trap '' XFSZ; ulimit -f \"$1\"; shift; exec \"$@\"", "bash"])
        .arg((size / 1024 + 600).to_string())
        .arg(env!("CARGO_BIN_EXE_keypool"))
        .args(["chat", "--user", "alice", "--server", &service.tunnel.url(), "--home"])
        .arg(service.folder.path().join("alice"));
    let lines = "word ".repeat(400) + "\n";
    let told = told(played(&mut limited, &lines.repeat(400)));
    assert!(told.ends_with("[1]"), "{told}");
    let error = told.lines().find(|line| line.starts_with("error: ")).unwrap_or_default();
    assert!(error.contains("disk"), "{told}");
    assert!(!told.contains("panicked"), "{told}");
    // With room again it goes on.
    let after = typed(&service, "alice", "/list\n");
    assert!(after.contains("in friday: alice (you), bob"), "{after}");
}

fn size_of_largest(folder: &Path) -> u64 {
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let sizes = entries.map(|path| {
        if path.is_dir() { size_of_largest(&path) } else { path.metadata().unwrap().len() }
    });
    sizes.max().unwrap_or_default()
}

#[test]
fn a_device_that_was_removed_is_told_so_and_how_it_comes_back() {
    let service = Service::start();
    let alice = run(async {
        drop(service.device("alice", 0).await);
        let (alice, phone) = (open(&service, "alice"), open(&service, "alice/phone"));
        let key = phone.identity().signature_key();
        let voucher = alice.vouch_for("phone", &key).await.unwrap();
        phone.register_vouched(Some(voucher)).await.unwrap();
        alice
    });
    let mut command = Command::new(env!("CARGO_BIN_EXE_keypool"));
    command.args(["chat", "--user", "alice", "--device", "phone", "--home"]);
    command.arg(service.folder.path().join("alice/phone"));
    command.args(["--server", &service.tunnel.url()]).stderr(Stdio::piped());
    let mut phone = Person::opens(&mut command);
    phone.says("/create friday");
    phone.reads("friday is made");
    run(async { alice.remove_device("phone").await.unwrap() });
    // What waited for its mail is told at once; typing is not needed for it.
    phone.reads("the server does not know this device any more: it was removed");
    let mut said = String::new();
    phone.program.stderr.take().unwrap().read_to_string(&mut said).unwrap();
    assert!(said.contains("key_retired"), "{said}");
    assert!(said.contains("register with a new home, --home OTHER"), "{said}");
    assert_eq!(phone.ends().1, 1);
}

/// A chat that refreshes by itself once a day.
pub(crate) fn patient_chat(service: &Service, name: &str) -> Command {
    let mut command = chat(service, name);
    command.args(["--refresh-s", "86400", "--refresh-messages", "1000000"]);
    command
}

/// Alice reserves 24 of Bob's packages, and his chat makes it good with so many.
fn drained_and_filled(service: &Service, bob: &mut Person, made: usize, so: &str) {
    // The server tells a copy of Bob's device what it tells his chat.
    let watcher = service.folder.path().join(so);
    std::fs::create_dir(&watcher).unwrap();
    copy(&service.folder.path().join("bob"), &watcher);
    let watcher = service.open_at(&watcher, "bob", PoolConfig::default());
    run(async {
        watcher.connection().fetch_history(service.clock.now()).await.unwrap();
        let alice = service.device("alice", 0).await;
        let mut listener = watcher.listen().await.unwrap();
        for _ in 0..24 {
            reserve(&alice, None).await;
        }
        for _ in 0..made {
            hears(&mut listener, "uploaded").await;
        }
    });
    bob.says("/pool");
    bob.reads(so);
}

#[test]
fn a_pool_that_is_told_to_be_low_is_filled_at_once_and_again_after_the_line_broke() {
    let service = Service::start();
    let mut bob = Person::opens(&mut patient_chat(&service, "bob"));
    bob.says("/pool");
    bob.reads("32 of 32 available");
    drained_and_filled(&service, &mut bob, 24, "32 of 32 available, 1 of last resort, 24 reserved");
    let service = run(service.beneath(async |_, _| {}));
    // There is room for eight more.
    drained_and_filled(&service, &mut bob, 8, "16 of 32 available, 1 of last resort, 48 reserved");
    assert_eq!(bob.ends().1, 0);
}

#[test]
fn whoever_brings_somebody_in_is_their_contact() {
    let service = Service::start();
    typed(&service, "bob", "");
    let mut bob = Person::opens(&mut patient_chat(&service, "bob"));
    typed(&service, "alice", "/create friday\n/invite bob\n");
    bob.reads("alice has brought you into friday");
    // What follows from it goes before the next line.
    bob.says("/pool");
    bob.reads("pool:");
    assert_eq!(bob.ends().1, 0);
    let policy = run(async { open(&service, "bob").connection().api().policy().await.unwrap() });
    assert_eq!(policy.contacts, ["alice"]);
}

/// Carol is in `friday`, which she speaks to, and in `saturday`.
#[test]
fn a_line_for_a_group_that_the_user_was_removed_from_goes_nowhere_else() {
    let service = Service::start();
    typed(&service, "bob", "");
    typed(&service, "carol", "");
    typed(
        &service,
        "alice",
        "/create friday\n/invite carol\n/create saturday\n/invite bob carol\n",
    );
    typed(&service, "carol", "/switch saturday\nhello\n");
    let mut carol = Person::opens(&mut patient_chat(&service, "carol"));
    carol.says("/groups");
    carol.reads("friday: 2 members <- here");
    typed(&service, "alice", "/switch friday\n/remove carol\n");
    carol.reads("you are out of friday; alice has seen to it");
    carol.says("alice must not know");
    carol.reads("nothing was done with that line: it was for friday, which you are out of");
    carol.says("nor this");
    carol.reads("no group is chosen; /switch NAME goes to one");
    carol.says("/groups");
    let line = carol.reads("saturday");
    assert!(!line.contains("<- here"), "{line}");
    carol.says("/switch saturday");
    carol.says("it is for you all");
    assert_eq!(carol.ends().1, 0);
    let bob = typed(&service, "bob", "/list\n");
    let heard: Vec<&str> =
        bob.lines().filter_map(|line| line.split_once("carol: ")).map(|it| it.1).collect();
    assert_eq!(heard, ["hello", "it is for you all"], "{bob}");
}

/// Carol's prompt is of no group when she is brought into `friday`; lines typed from then on are for it.
#[test]
fn a_line_for_a_group_that_came_and_went_goes_to_no_later_one() {
    let service = Service::start();
    typed(&service, "bob", "");
    let mut carol = Person::opens(&mut patient_chat(&service, "carol"));
    carol.says("/pool");
    carol.reads("pool:");
    typed(&service, "alice", "/create friday\n/invite carol\n");
    carol.reads("alice has brought you into friday");
    typed(&service, "alice", "/remove carol\n");
    carol.reads("you are out of friday; alice has seen to it");
    typed(&service, "alice", "/create monday\n/invite bob carol\n");
    carol.reads("alice has brought you into monday");
    carol.says("bob must not know");
    carol.reads("nothing was done with that line: it was for friday, which you are out of");
    carol.says("it is for you all");
    assert_eq!(carol.ends().1, 0);
    let bob = typed(&service, "bob", "/list\n");
    assert!(bob.contains("carol: it is for you all") && !bob.contains("must not"), "{bob}");
}

/// The limit of nginx unless it is told otherwise, and that of the library.
#[test]
fn a_line_that_is_too_large_for_a_proxy_is_dropped_and_said_and_the_group_goes_on() {
    let service = Service::start();
    service.tunnel.limit_bodies(1 << 20);
    typed(&service, "bob", "");
    typed(&service, "alice", "/create friday\n/invite bob\n");
    let lines = format!("{}\n{}\nhello\n", "a".repeat(1_400_000), "b".repeat(1_500_001));
    let said = typed(&service, "alice", &lines);
    assert!(
        said.contains("(status 413); a proxy before the server takes smaller requests"),
        "{said}"
    );
    assert!(said.contains("client_max_body_size"), "{said}");
    assert!(said.contains("has 1500001 bytes, and 1500000 is the most that can be sent"), "{said}");
    let bob = typed(&service, "bob", "/list\n");
    let heard: Vec<&str> = bob.lines().filter_map(said_by_alice).collect();
    assert_eq!(heard, ["hello"]);
}

#[test]
fn somebody_who_is_blocked_can_neither_write_nor_invite_until_that_ends() {
    let service = Service::start();
    typed(&service, "bob", "");
    typed(&service, "alice", "/create friday\n/invite bob\n");
    let said = typed(&service, "bob", "/block alice\n");
    assert!(said.contains("alice can neither invite you nor write to you"), "{said}");
    let said = typed(&service, "alice", "hello?\n/create saturday\n/invite bob\n");
    let takes_none = "bob takes no invitations from you; ask bob to add you as a contact";
    assert!(said.contains(takes_none) && !said.contains("owns the pool"), "{said}");
    let said = typed(&service, "bob", "/unblock alice\n");
    assert!(said.contains("alice can invite you and write to you again"), "{said}");
    assert!(!said.contains("hello?"), "{said}");
    typed(&service, "alice", "/switch friday\nhello!\n/switch saturday\n/invite bob\n");
    let said = typed(&service, "bob", "/groups\n");
    assert!(said.contains("alice: hello!") && said.contains("saturday: 2 members"), "{said}");
}

/// Seven messages of 1.4 MB are more than Bob's mailbox keeps of one sender in one group: half of 16 MiB.
#[test]
fn somebody_whom_a_line_did_not_reach_is_named_and_told() {
    let service = Service::start();
    typed(&service, "bob", "");
    typed(&service, "alice", "/create friday\n/invite bob\n");
    typed(&service, "bob", "");
    let line = "a".repeat(1_400_000) + "\n";
    let said = typed(&service, "alice", &line.repeat(7));
    assert!(said.contains("bob did not get this: their mailbox is full for this group"), "{said}");
    let said = typed(&service, "bob", "/list\n");
    assert!(said.contains("some messages of alice in friday were not kept"), "{said}");
    typed(&service, "alice", "again\n");
    let said = typed(&service, "bob", "/list\n");
    assert!(said.contains("alice: again"), "{said}");
}

/// Bob has not accepted the group, so that his mailbox keeps 32 KiB of Alice.
#[test]
fn somebody_whom_a_line_that_had_waited_did_not_reach_is_named() {
    let service = Service::start();
    typed(&service, "bob", "");
    typed(&service, "alice", "/create friday\n/invite bob\n");
    let mut away = Person::opens(&mut chat_at(&service, "alice", "http://127.0.0.1:1"));
    away.says(&"a".repeat(40_000));
    away.reads("the message goes out when it does");
    assert_eq!(away.ends().1, 0);
    let said = typed(&service, "alice", "/list\n");
    let missed =
        "bob did not get a message to friday that had waited: their mailbox is full for this group";
    assert_eq!(said.matches(missed).count(), 1, "{said}");
}

#[test]
fn whoever_asks_to_leave_is_seen_to_ask_and_to_have_left() {
    let service = Service::start();
    typed(&service, "bob", "");
    let mut alice = Person::opens(&mut patient_chat(&service, "alice"));
    alice.says("/create friday");
    alice.says("/invite bob");
    alice.reads("bob is in friday");
    typed(&service, "bob", "");
    typed(&service, "bob", "/leave\n");
    alice.reads("bob asks to leave friday");
    alice.reads("bob has left friday");
    alice.says("/list");
    assert_eq!(alice.reads("in friday:"), "in friday: alice (you)");
    assert_eq!(alice.ends().1, 0);
}
