//! The module for Python: its example, and devices that are treated badly.

use std::{
    env,
    path::Path,
    process::{Command, Output},
};

use super::service::Service;

/// The variable with the folder of the generated module for Python. `client/bindings/run` sets it.
const MODULE: &str = "KEYPOOL_PYTHON_MODULE";

#[test]
fn python_may_treat_a_device_badly() {
    if let Some(output) = run("test_device.py") {
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
}

#[test]
fn the_example_for_python_runs() {
    if let Some(output) = run("example.py") {
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        assert_eq!(String::from_utf8_lossy(&output.stdout), "ben/main: pizza at eight?\n");
    }
}

/// Runs a script against a server of its own; none where there is no module.
#[expect(clippy::print_stdout, reason = "a test that is skipped says so")]
fn run(script: &str) -> Option<Output> {
    let Ok(module) = env::var(MODULE) else {
        println!("skipped: {MODULE} is not set; client/bindings/run sets it");
        return None;
    };
    let service = Service::start();
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("python").join(script);
    let mut python = Command::new("python3");
    let python = python.arg(script).arg(module).arg(service.url()).arg(service.homes());
    Some(python.output().unwrap())
}
