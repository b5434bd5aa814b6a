//! The settings as an operator writes, checks and reads them.

use std::{fs, path::Path, process::Command};

use crate::harness::{Process, command, refusal};

/// The program without any setting.
fn bare() -> Command {
    let mut bare = Command::new(env!("CARGO_BIN_EXE_keypool-server"));
    bare.env_clear();
    bare
}

/// Standard output and the exit code of a command that ends by itself, and its standard error.
fn ran(command: &mut Command) -> (String, i32, String) {
    let output = command.output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (text(output.stdout), output.status.code().unwrap(), text(output.stderr))
}

fn shown(text: &str, name: &str) -> String {
    let start = format!("{name} = ");
    text.lines().find_map(|line| line.strip_prefix(&start)).unwrap_or_default().to_owned()
}

#[test]
fn the_settings_in_force_are_shown_with_the_layer_of_each() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("keypool.toml");
    fs::write(
        &file,
        "# mine\ngrace = \"5s\"\nlog = \"warn\"\nciphersuite = [1, 3]\npackages-max = 7\n",
    )
    .unwrap();
    let (text, code, _) = ran(bare()
        .args(["config", "show", "--packages-max", "9", "--no-quotas", "--config"])
        .arg(&file)
        .env("KEYPOOL_PUBLIC_NAME", "one.example,two.example")
        .env("KEYPOOL_GRACE", "6s"));
    assert_eq!(code, 0);
    assert_eq!(shown(&text, "packages-max"), "9  # flag");
    assert_eq!(shown(&text, "no-quotas"), "true  # flag");
    assert_eq!(shown(&text, "grace"), "\"6s\"  # KEYPOOL_GRACE");
    let names = "[\"one.example\", \"two.example\"]  # KEYPOOL_PUBLIC_NAME";
    assert_eq!(shown(&text, "public-name"), names);
    assert_eq!(shown(&text, "log"), format!("\"warn\"  # {}, line 3", file.display()));
    assert_eq!(shown(&text, "ciphersuite"), format!("[1, 3]  # {}, line 4", file.display()));
    assert_eq!(shown(&text, "reservation-ttl"), "\"60s\"  # default");
    assert!(text.contains("# allow-list is not set\n"), "{text}");

    // The text is a file of settings with the same effect.
    let again = dir.path().join("again.toml");
    fs::write(&again, &text).unwrap();
    let (second, code, said) = ran(bare().args(["config", "show", "--config"]).arg(&again));
    assert_eq!(code, 0, "{said}");
    let values = |text: &str| -> Vec<String> {
        text.lines().map(|line| line.split("  # ").next().unwrap().to_owned()).collect()
    };
    assert_eq!(values(&second), values(&text));
}

#[test]
fn a_check_reads_the_files_too_and_starts_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let deep = data.join("backups/deep");
    let check = |more: &[&str]| {
        let mut check = bare();
        check.args(["config", "check", "--data"]).arg(&data).args(more);
        ran(&mut check)
    };
    assert_eq!(check(&[]), ("the settings are good\n".to_owned(), 0, String::new()));
    let wrong: [(&[&str], &str); 8] = [
        (&["--packages-max", "0"], "--packages-max must be greater than zero"),
        (
            &["--backups", "/nowhere/backups"],
            "no directory /nowhere/backups for --backups: make it",
        ),
        (&["--backups", data.to_str().unwrap()], "lies in the data directory"),
        (&["--backups", deep.to_str().unwrap()], "lies in the data directory"),
        (&["--admin-token-file", "/nowhere/token"], "/nowhere/token cannot be read"),
        (&["--x509-roots", "/nowhere/roots.pem"], "/nowhere/roots.pem"),
        (&["--registration", "allow-list", "--allow-list", "/nowhere/list"], "/nowhere/list"),
        (&["--log", "keypool_server=loud"], "is not a filter"),
    ];
    for (flags, expected) in wrong {
        let (out, code, said) = check(flags);
        assert!(out.is_empty() && code == 2 && said.contains(expected), "{flags:?} {said} {code}");
    }
    assert!(!data.exists());
}

#[test]
fn a_mistaken_check_flag_points_to_the_command() {
    let (_, code, said) = ran(bare().arg("--check"));
    assert_eq!(code, 2);
    assert!(said.contains("keypool-server config check"), "{said}");
    assert!(!said.contains("--checkpoint"), "{said}");
}

#[test]
fn the_log_is_set_in_the_file() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("keypool.toml");
    fs::write(&file, "log = \"keypool_server=info\"\nlog-format = \"json\"\n").unwrap();
    let mut command = command(&dir.path().join("data"));
    let mut process =
        Process::spawn(command.arg("--config").arg(&file).stderr(std::process::Stdio::piped()));
    let line = process.said("ready");
    let line: serde_json::Value = serde_json::from_str(&line).unwrap();
    assert_eq!(line["fields"]["message"], "ready");
}

#[test]
fn a_server_listens_at_the_first_address_of_a_name() {
    let dir = tempfile::tempdir().unwrap();
    let mut by_name = bare();
    by_name.args([
        "--listen",
        "localhost:0",
        "--admin-listen",
        "localhost:0",
        "--disk-low-water",
        "0",
    ]);
    let process =
        Process::spawn(by_name.arg("--data").arg(dir.path()).stderr(std::process::Stdio::null()));
    let address: std::net::SocketAddr = process.api.authority().parse().unwrap();
    assert!(address.ip().is_loopback());
    assert!(process.terminate().success());
    let (said, code) = refusal(bare().args(["--listen", "no-such-name.invalid:8080"]));
    assert_eq!(code, 2);
    assert!(said.contains("finds no address of the name \"no-such-name.invalid\""), "{said}");
}

#[test]
fn a_wrong_value_is_told_with_the_flag_or_the_variable_that_has_it() {
    let of_variable = |name: &str, value: &str| refusal(bare().env(name, value));
    let (said, code) = of_variable("KEYPOOL_LISTEN", "8080");
    assert_eq!(code, 2);
    let expected = "keypool-server: KEYPOOL_LISTEN: invalid value '8080': \"8080\" is no address such as \
                    127.0.0.1:8080 or localhost:8080";
    assert_eq!(said, expected);
    let (said, _) = of_variable("KEYPOOL_ON_LAPSE", "retry");
    assert!(said.starts_with("keypool-server: KEYPOOL_ON_LAPSE: invalid value 'retry'"), "{said}");
    assert!(said.contains("possible values: requeue, retire"), "{said}");
    let (said, _) = refusal(bare().args(["--listen", "8081"]).env("KEYPOOL_LISTEN", "8080"));
    assert!(said.contains("--listen") && said.contains("'8081'"), "{said}");
}

#[test]
fn a_misspelled_variable_is_warned_about_with_the_nearest_name() {
    let dir = tempfile::tempdir().unwrap();
    let mut command = command(dir.path());
    command.env("KEYPOOL_LISTN", "0.0.0.0:80").env("KEYPOOL_COLOUR", "green");
    let process = Process::spawn(command.stderr(std::process::Stdio::piped()));
    let pid = process.id().to_string();
    assert!(Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
    let (_, said) = process.ended();
    let line = |words| said.lines().find(|line| line.contains(words)).unwrap_or_default();
    let stranger = line("KEYPOOL_COLOUR");
    assert!(stranger.contains("WARN") && !stranger.contains("meant"), "{said}");
    assert!(line("KEYPOOL_LISTN").ends_with("is KEYPOOL_LISTEN meant?"), "{said}");
}

#[test]
fn faults_of_the_file_are_told_with_their_line() {
    let dir = tempfile::tempdir().unwrap();
    let said = |text: &str| faults(dir.path(), text);
    let unknown = said("grace = \"5s\"\n\nreservation-tll = \"90s\"");
    let expected = "FILE, line 3: there is no setting \"reservation-tll\": is \"reservation-ttl\" meant? \
                    `keypool-server config show` lists all";
    assert_eq!(unknown, expected);
    assert!(
        said("colour = 1")
            .ends_with("there is no setting \"colour\": `keypool-server config show` lists all")
    );
    assert!(said("config = \"other.toml\"").contains("there is no setting \"config\""));
    assert!(said("\nciphersuite = []").starts_with("FILE, line 2: ciphersuite is an empty list"));
    assert!(said("[listen]\nport = 1").starts_with("FILE, line 1: listen is not a text"));
    assert!(said("grace = ").starts_with("FILE, line 1: "));
}

fn faults(dir: &Path, text: &str) -> String {
    let file = dir.join("keypool.toml");
    fs::write(&file, text).unwrap();
    let (said, code) = refusal(bare().arg("--config").arg(&file));
    assert_eq!(code, 2, "{said}");
    let said = said.strip_prefix("keypool-server: ").unwrap();
    said.replace(&file.display().to_string(), "FILE")
}
