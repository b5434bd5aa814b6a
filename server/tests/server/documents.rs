//! The server's documents: its API document, its help, its greeting, its complaints.

use std::{fs, process::Stdio};

use keypool_transparency::NoteKey;

use crate::harness::{Api, Device, Draft, Process, Running, answer, command, refusal};

#[actix_web::test]
async fn the_api_document() {
    let running = Running::start();
    let document = answer(running.api.http.get(format!("{}/openapi.json", running.api.url)));
    let document = document.await.unwrap();
    assert_eq!(document.header("content-type"), "application/json");
    assert_eq!(document.body["openapi"], "3.1.0");
    insta::assert_snapshot!(String::from_utf8(document.bytes).unwrap());
}

#[test]
fn the_help() {
    let dir = tempfile::tempdir().unwrap();
    let help = command(dir.path()).arg("--help").output().unwrap();
    assert!(help.status.success());
    insta::assert_snapshot!(String::from_utf8(help.stdout).unwrap());
}

#[actix_web::test]
async fn the_greeting_says_where_everything_is() {
    let dir = tempfile::tempdir().unwrap();
    let process = Process::start(dir.path());
    let greeting = process.greeting.join("\n");
    let admin = greeting.lines().nth(1).unwrap().trim_start_matches("metrics").trim();
    assert_eq!(answer(process.api.http.get(admin)).await.unwrap().status, 200);
    let admin_address = admin.trim_start_matches("http://").trim_end_matches("/metrics");
    let text = greeting
        .replace(admin_address, "ADMIN")
        .replace(process.api.authority(), "ADDRESS")
        .replace(&dir.path().display().to_string(), "DIR");
    let key = text.lines().find_map(|line| line.strip_prefix("ledger key   ")).unwrap();
    key.parse::<NoteKey>().unwrap();
    let text = text.replace(key, "KEY");
    insta::assert_snapshot!(text, @"
    listening on http://ADDRESS
    metrics      http://ADMIN/metrics
    page         http://ADMIN/
    data         DIR
    API document http://ADDRESS/openapi.json
    ledger key   KEY
    try          keypool --home ~/.keypool --server http://ADDRESS --user alice register
    ");
}

#[test]
fn complaints_say_what_is_wrong_and_what_to_do() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let config = dir.path().join("keypool.toml");
    let said = |text: &str| {
        fs::write(&config, text).unwrap();
        let (said, code) = refusal(command(&data).arg("--config").arg(&config));
        format!("{} ({code})", said.replace(&config.display().to_string(), "FILE"))
    };
    let cases = [
        said("grase = \"5s\""),
        said("grace = \"soon\""),
        said("listen = 8080"),
        said("packages-max = 0"),
        said("batch-packages-max = \"many\""),
        said("body-bytes-max = 33554432"),
    ];
    insta::assert_snapshot!(cases.join("\n---\n"));
    let (said, code) = refusal(command(&data).args(["--config", "/nowhere/keypool.toml"]));
    let expected = "keypool-server: the settings in /nowhere/keypool.toml cannot be read: No such file or directory (os error 2)";
    assert_eq!((said.as_str(), code), (expected, 2));
}

#[test]
fn an_address_in_use_and_insecurity_in_public_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let bare = || {
        let mut bare = std::process::Command::new(env!("CARGO_BIN_EXE_keypool-server"));
        bare.env_clear().arg("--data").arg(dir.path());
        bare
    };
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let (said, code) =
        refusal(bare().args(["--listen", &address, "--admin-listen", "127.0.0.1:0"]));
    let start =
        format!("keypool-server: cannot listen at {address} (is another server running there?): ");
    assert!(said.starts_with(&start) && code == 1, "{said} ({code})");
    let (said, code) = refusal(bare().args(["--listen", "0.0.0.0:0", "--insecure-no-auth"]));
    assert_eq!(
        (said.as_str(), code),
        (
            "keypool-server: --insecure-no-auth works on loopback only, and 0.0.0.0:0 is not: others could reach it",
            2
        )
    );
}

#[test]
fn a_flag_goes_before_the_environment_and_that_before_the_file() {
    let dir = tempfile::tempdir().unwrap();
    let config = dir.path().join("keypool.toml");
    fs::write(&config, "packages-max = 0\nrenewals-max = 9").unwrap();
    let said =
        |command: &mut std::process::Command| refusal(command.arg("--body-bytes-max").arg("0")).0;
    let file = || {
        let mut from_file = command(dir.path());
        from_file.arg("--config").arg(&config);
        from_file
    };
    // The first number that is zero is named: what was set elsewhere is not.
    assert!(said(&mut file()).contains("--packages-max"));
    assert!(said(file().env("KEYPOOL_PACKAGES_MAX", "7")).contains("--body-bytes-max"));
    let flag = said(file().env("KEYPOOL_PACKAGES_MAX", "0").args(["--packages-max", "7"]));
    assert!(flag.contains("--body-bytes-max"), "{flag}");
}

#[test]
fn a_log_filter_that_is_none_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let (said, code) = refusal(command(dir.path()).args(["--log", "keypool_server=loud"]));
    let start =
        "keypool-server: --log \"keypool_server=loud\" is not a filter such as info or warn";
    assert!(said.starts_with(start) && code == 2, "{said} ({code})");
}

#[test]
fn a_server_with_a_public_name_says_it_in_what_to_try() {
    let dir = tempfile::tempdir().unwrap();
    let name = ["--public-name", "keypool.example"];
    let process = Process::spawn(command(dir.path()).args(name).stderr(Stdio::null()));
    let expected = "try          keypool --home ~/.keypool --server https://keypool.example --user alice register";
    assert_eq!(process.greeting.last().unwrap(), expected);
}

#[actix_web::test]
async fn a_server_on_all_addresses_asks_for_its_names_and_is_reached_at_loopback() {
    let dir = tempfile::tempdir().unwrap();
    let mut bare = std::process::Command::new(env!("CARGO_BIN_EXE_keypool-server"));
    bare.env_clear().arg("--data").arg(dir.path());
    bare.args(["--listen", "0.0.0.0:0", "--admin-listen", "127.0.0.1:0"]);
    let mut process = Process::spawn(bare.stderr(Stdio::piped()));
    let port = process.api.url.rsplit(':').next().unwrap().to_owned();
    let api = Api { url: format!("http://127.0.0.1:{port}"), ..process.api.clone() };
    api.register(&Device::new("alice")).await.ok();
    // By another name it is not, and the refusal says what to do.
    let named = Draft::get("/keypackages/status");
    let headers = named.headers(&Device::new("alice"), "keypool.example", api.clock.now());
    let request = api.with_headers(&named, &headers).header("host", "keypool.example");
    let refused = answer(request).await.unwrap();
    assert_eq!(refused.code(), "unauthenticated");
    assert!(refused.text("detail").contains("--public-name"), "{}", refused.body);
    let warning = process.said("--public-name");
    assert!(warning.contains("WARN"), "{warning}");
}

#[test]
fn the_operators_page_lists_every_setting() {
    let page = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/operating.md");
    let page = fs::read_to_string(page).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let help = command(dir.path()).arg("--help").output().unwrap();
    let help = String::from_utf8(help.stdout).unwrap();
    let flags = help.lines().filter_map(|line| line.strip_prefix("      --"));
    for flag in flags.map(|line| line.split(' ').next().unwrap()) {
        let variable = flag.to_ascii_uppercase().replace('-', "_");
        assert!(page.contains(&format!("| `--{flag}` | `KEYPOOL_{variable}` | ")), "--{flag}");
    }
}
