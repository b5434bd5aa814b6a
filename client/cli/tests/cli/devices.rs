//! Devices removed from the command line, together with the devices that they vouched for.

use super::{
    command_line::{keypool, told},
    members::{open, second_device},
    service::{Service, run},
};

/// Alice's phone has vouched for a watch.
async fn with_phone_and_watch(service: &Service) {
    drop(service.device("alice", 0).await);
    let alice = open(service, "alice");
    let phone = second_device(service, &alice, "phone").await;
    drop(second_device(service, &phone, "watch").await);
}

/// The command removes the devices that a stolen device may have made, if it is asked to.
#[test]
fn the_command_names_or_removes_what_a_removed_device_had_introduced() {
    let service = Service::start();
    run(with_phone_and_watch(&service));
    let said = told(&keypool(&service, &["remove-device", "phone"]));
    assert!(
        said.contains("it had introduced watch: remove them as well if it was stolen"),
        "{said}"
    );
    assert!(said.ends_with("keypool remove-device watch\n[0]"), "{said}");
    let service = Service::start();
    run(with_phone_and_watch(&service));
    let said = told(&keypool(&service, &["remove-device", "phone", "--with-introduced"]));
    for device in ["phone", "watch"] {
        assert!(said.contains(&format!("alice/{device} is removed")), "{said}");
    }
}

/// The phone cleans up after a stolen device that had vouched for it.
#[test]
fn the_command_removes_the_introduced_devices_and_not_the_one_it_runs_on() {
    let service = Service::start();
    run(with_phone_and_watch(&service));
    let on_the_phone = |arguments: &[&str]| {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_keypool"));
        command.args(["--user", "alice", "--device", "phone", "--home"]);
        command.arg(service.folder.path().join("alice/phone"));
        command.args(["--server", &service.tunnel.url()]).args(arguments);
        told(&command.output().unwrap())
    };
    let refused = on_the_phone(&["remove-device", "phone", "--with-introduced"]);
    assert!(refused.contains("run this on a device that stays"), "{refused}");
    let said = on_the_phone(&["remove-device", "main", "--with-introduced"]);
    for device in ["main", "watch"] {
        assert!(said.contains(&format!("alice/{device} is removed")), "{said}");
    }
    assert!(said.ends_with("[0]") && !said.contains("phone"), "{said}");
    let left = run(open(&service, "alice/phone").connection().api().devices_of("alice")).unwrap();
    let left: Vec<&str> = left.iter().map(keypool_ledger::PoolId::device).collect();
    assert_eq!(left, ["phone"]);
}
