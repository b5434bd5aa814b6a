//! The files that operators install: the unit, the package, the image, dashboards and alerts, and the pages that the
//! program writes of itself.

use std::{
    fs,
    os::unix::net::UnixDatagram,
    path::PathBuf,
    process::{Command, Stdio},
    time::Duration,
};

use keypool_server::read_command_line;

use crate::{
    cluster::metrics_of_a_member,
    harness::{Process, Running, answer, command},
};

fn crate_dir() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn packaged(name: &str) -> String {
    fs::read_to_string(crate_dir().join("packaging").join(name)).unwrap()
}

/// The metrics that a text names, each with the labels that it asks to be equal to something.
fn metrics_in(text: &str) -> Vec<(String, Vec<String>)> {
    let text = text.replace("\\\"", "\"");
    let mut found = Vec::new();
    for (at, _) in text.match_indices("keypool_") {
        let rest = &text[at..];
        let end = rest.find(|letter: char| !letter.is_ascii_lowercase() && letter != '_').unwrap();
        let (name, rest) = rest.split_at(end);
        let selector = rest.strip_prefix('{').and_then(|rest| rest.split('}').next());
        let labels = selector.unwrap_or_default().split(", ").filter(|label| label.contains("=\""));
        found.push((name.to_owned(), labels.map(str::to_owned).collect()));
    }
    found
}

#[actix_web::test]
async fn each_metric_of_the_dashboard_and_the_alerts_is_there_and_counts_from_zero() {
    let running = Running::start();
    let scrape = async || {
        let request = running.api.http.get(format!("{}/metrics", running.admin_url()));
        String::from_utf8(answer(request).await.unwrap().ok().bytes).unwrap()
    };
    // The histogram begins with the first request.
    scrape().await;
    let metrics = scrape().await + &metrics_of_a_member().await;
    let named = [packaged("grafana-dashboard.json"), packaged("prometheus-alerts.yml")];
    let named: Vec<_> = named.iter().flat_map(|text| metrics_in(text)).collect();
    assert!(30 < named.len(), "{named:?}");
    for (name, labels) in named {
        let lines = metrics.lines().filter(|line| {
            let of_name = line.strip_prefix(&name).is_some_and(|rest| rest.starts_with([' ', '{']));
            of_name && labels.iter().all(|label| line.contains(label.as_str()))
        });
        let lines: Vec<&str> = lines.collect();
        assert!(!lines.is_empty(), "{name} {labels:?} is not in\n{metrics}");
        let counts = name.ends_with("_total") && name != "keypool_http_requests_total";
        assert!(!counts || lines.iter().all(|line| line.ends_with(" 0")), "{lines:?}");
    }
}

#[test]
fn the_unit_starts_the_server_with_a_file_of_its_package() {
    let unit = packaged("keypool-server.service");
    let start = unit.lines().find_map(|line| line.strip_prefix("ExecStart=")).unwrap();
    let words: Vec<&str> = start.split(' ').collect();
    assert_eq!(words[0], "/usr/bin/keypool-server");
    let file = words.last().unwrap();
    let manifest = fs::read_to_string(crate_dir().join("Cargo.toml")).unwrap();
    assert!(manifest.contains(&format!("conf-files = [\"{file}\"]")), "{file}");
    let sample = crate_dir().join("packaging/keypool-server.toml");
    let words =
        words.iter().map(|word| if word == file { sample.as_os_str() } else { word.as_ref() });
    assert!(read_command_line(words.map(Into::into)).unwrap().options().is_some());
    for line in ["Type=notify", "User=keypool", "RestartPreventExitStatus=2"] {
        assert!(unit.lines().any(|found| found == line), "{line}");
    }
    assert!(packaged("keypool-server.sysusers").lines().any(|line| line.starts_with("u keypool ")));
}

/// The value of a setting of the unit.
fn of_unit(name: &str) -> String {
    let unit = packaged("keypool-server.service");
    let value = unit.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('='));
    value.unwrap_or_else(|| panic!("{name}")).to_owned()
}

#[test]
fn the_unit_lets_the_server_write_each_directory_that_the_package_makes_for_it() {
    let states = of_unit("StateDirectory");
    let states = states.split(' ').map(|state| format!("/var/lib/{state}"));
    let others = of_unit("ReadWritePaths");
    let others = others.split(' ').map(|path| path.trim_start_matches('-').to_owned());
    let mut writable: Vec<String> = states.chain(others).collect();
    let files = packaged("keypool-server.tmpfiles");
    let lines = files.lines().filter(|line| line.ends_with(" 0700 keypool keypool -"));
    let mut made: Vec<&str> = lines.map(|line| line.split(' ').nth(1).unwrap()).collect();
    writable.sort();
    made.sort_unstable();
    assert_eq!(writable, made);
}

#[test]
fn unit_and_package_need_no_program_that_a_small_debian_lacks() {
    let manifest = fs::read_to_string(crate_dir().join("Cargo.toml")).unwrap();
    assert!(manifest.contains("depends = \"$auto, systemd | systemd-standalone-sysusers"));
    // In Debian `kill` is in procps, which is not essential.
    assert_eq!(of_unit("ExecReload"), "/bin/sh -c \"kill -HUP $MAINPID\"");
}

#[test]
fn the_package_has_the_program_that_restores_a_backup() {
    let manifest = fs::read_to_string(crate_dir().join("Cargo.toml")).unwrap();
    assert!(manifest.contains("[\"target/release/keypool-ledger\", \"usr/bin/\", \"755\"]"));
}

#[test]
fn the_image_of_built_programs_runs_as_the_other_one_does() {
    let [image, prebuilt] = ["Containerfile", "Containerfile.prebuilt"].map(packaged);
    let runs = |image: &str| image[image.find("\nUSER ").unwrap()..].to_owned();
    assert_eq!(runs(&image), runs(&prebuilt));
}

#[test]
fn each_file_that_the_package_and_the_image_take_exists() {
    let manifest = fs::read_to_string(crate_dir().join("Cargo.toml")).unwrap();
    let assets = manifest.lines().filter_map(|line| line.strip_prefix("    [\""));
    let assets: Vec<&str> = assets.map(|line| line.split('"').next().unwrap()).collect();
    assert!(8 < assets.len(), "{assets:?}");
    let is_built = |path: &str| path.trim_start_matches("../").starts_with("target/");
    let sources =
        assets.into_iter().filter(|path| !is_built(path)).map(|path| crate_dir().join(path));
    let image = packaged("Containerfile");
    let copied = image.lines().filter_map(|line| line.strip_prefix("COPY "));
    let copied = copied.filter(|line| !line.starts_with("--from")).flat_map(|line| {
        let words: Vec<PathBuf> =
            line.split(' ').map(|word| crate_dir().join("..").join(word)).collect();
        words[..words.len() - 1].to_vec()
    });
    for path in sources.chain(copied) {
        assert!(path.exists(), "{}", path.display());
    }
}

#[test]
fn each_member_of_the_workspace_is_in_the_image() {
    let workspace = fs::read_to_string(crate_dir().join("../Cargo.toml")).unwrap();
    let members = workspace.lines().find_map(|line| line.strip_prefix("members = [")).unwrap();
    let image = packaged("Containerfile");
    for member in
        members.split('"').filter(|part| part.starts_with(|letter: char| letter.is_alphabetic()))
    {
        let folder = member.split('/').next().unwrap();
        assert!(image.contains(&format!("COPY {folder} {folder}\n")), "{member}");
    }
}

#[test]
fn the_service_manager_is_told_when_requests_are_taken_and_when_the_server_stops() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("notify");
    let socket = UnixDatagram::bind(&path).unwrap();
    socket.set_read_timeout(Some(Duration::from_mins(1))).unwrap();
    let told = || {
        let mut text = [0; 256];
        let length = socket.recv(&mut text).unwrap();
        String::from_utf8_lossy(&text[..length]).trim_end().to_owned()
    };
    let mut command = command(&dir.path().join("data"));
    let mut process = Process::spawn(command.env("NOTIFY_SOCKET", &path).stderr(Stdio::piped()));
    assert_eq!(told(), "READY=1");
    // The unit's reload does not end a server that has no file to read again.
    assert!(process.reload("read again").contains("INFO"));
    assert!(process.terminate().success());
    assert_eq!(told(), "STOPPING=1");
}

#[test]
fn the_program_writes_its_completions_and_manual_pages() {
    let dir = tempfile::tempdir().unwrap();
    let run = |words: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_keypool-server"));
        command.env_clear().args(words).output().unwrap()
    };
    for shell in ["bash", "zsh", "fish"] {
        let output = run(&["completions", shell]);
        let text = String::from_utf8(output.stdout).unwrap();
        assert!(text.contains("reservation-ttl") && text.contains("remove-device"), "{shell}");
    }
    let pages = dir.path().join("new/pages");
    assert!(run(&["man", pages.to_str().unwrap()]).status.success());
    let page = |name: &str| fs::read_to_string(pages.join(name)).unwrap();
    assert!(page("keypool-server.1").contains("\\-\\-reservation\\-ttl"));
    assert!(page("keypool-server-admin-pools.1").contains("low"));
    let file = pages.join("keypool-server.1");
    let refused = run(&["man", file.to_str().unwrap()]);
    assert_eq!(refused.status.code(), Some(1));
    assert!(String::from_utf8(refused.stderr).unwrap().contains("keypool-server.1 cannot be"));
}
