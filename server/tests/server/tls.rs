//! TLS of the public listener: served, reloaded by SIGHUP, and kept where a new file is broken.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::Arc,
};

use keypool_ledger::SystemClock;

use crate::harness::{Api, Device, Process, answer, command, refusal};

/// A directory with a certificate and its key, which a server is started with.
struct TlsFiles {
    dir: tempfile::TempDir,
}

impl TlsFiles {
    fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap() }
    }

    fn at(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Replaces both by new ones, and returns the certificate.
    fn renew(&self) -> String {
        let names = ["localhost", "127.0.0.1"].map(str::to_owned);
        let made = rcgen::generate_simple_self_signed(names).unwrap();
        fs::write(self.at("cert.pem"), made.cert.pem()).unwrap();
        fs::write(self.at("key.pem"), made.signing_key.serialize_pem()).unwrap();
        made.cert.pem()
    }

    fn command(&self, data: &Path) -> Command {
        let mut command = command(data);
        command.arg("--tls-cert").arg(self.at("cert.pem"));
        command.arg("--tls-key").arg(self.at("key.pem"));
        command.stderr(Stdio::piped());
        command
    }
}

/// A client that trusts one certificate.
fn trusting(process: &Process, certificate: &str) -> Api {
    let certificate = reqwest::Certificate::from_pem(certificate.as_bytes()).unwrap();
    let http = reqwest::Client::builder().no_proxy().tls_certs_only([certificate]).build().unwrap();
    Api { http, ..Api::new(process.api.url.clone(), Arc::new(SystemClock)) }
}

async fn is_ready(api: &Api) -> bool {
    let asked = answer(api.http.get(format!("{}/readyz", api.url))).await;
    asked.is_ok_and(|answer| answer.status == 200)
}

#[actix_web::test]
async fn a_new_certificate_is_served_after_sighup_and_a_broken_one_is_not() {
    let files = TlsFiles::new();
    let first = files.renew();
    let mut process = Process::spawn(&mut files.command(&files.at("data")));
    assert!(process.api.url.starts_with("https://127.0.0.1:"), "{}", process.api.url);
    let old = trusting(&process, &first);
    let alice = Device::new("alice");
    old.register(&alice).await.ok();
    // The operator's listener stays plain.
    let admin = process.greeting[1].trim_start_matches("metrics").trim().to_owned();
    answer(reqwest::Client::new().get(admin)).await.unwrap().ok();

    let second = files.renew();
    process.reload("the certificate was read again");
    let new = trusting(&process, &second);
    assert!(is_ready(&new).await);
    assert!(!is_ready(&trusting(&process, &first)).await, "the old certificate is still shown");
    // A connection that was open before goes on.
    old.get(&alice, "/keypackages/status").await.ok();

    fs::write(files.at("cert.pem"), "no certificate").unwrap();
    let said = process.reload("the certificate stays as it was");
    assert!(
        said.contains("ERROR") && said.contains("cert.pem has no certificate in PEM"),
        "{said}"
    );
    assert!(is_ready(&trusting(&process, &second)).await);
    // The certificate of another key.
    let key = fs::read(files.at("key.pem")).unwrap();
    files.renew();
    fs::write(files.at("key.pem"), key).unwrap();
    let said = process.reload("the certificate stays as it was");
    assert!(said.contains("cannot be used with the key in"), "{said}");
    assert!(is_ready(&trusting(&process, &second)).await);
    assert!(process.terminate().success());
}

#[test]
fn tls_without_one_of_its_files_is_refused_as_a_setting() {
    let files = TlsFiles::new();
    files.renew();
    let with = |flags: &[(&str, &str)]| {
        let mut command = command(&files.at("data"));
        for (flag, name) in flags {
            command.arg(flag).arg(files.at(name));
        }
        refusal(&mut command)
    };
    let (said, code) = with(&[("--tls-cert", "cert.pem")]);
    assert!(code == 2 && said.contains("--tls-key is missing; --tls-cert needs it"), "{said}");
    let (said, code) = with(&[("--tls-key", "key.pem")]);
    assert!(code == 2 && said.contains("--tls-cert is missing; --tls-key needs it"), "{said}");
    let (said, code) = with(&[("--tls-cert", "cert.pem"), ("--tls-key", "nowhere")]);
    assert!(code == 2 && said.contains("nowhere cannot be read"), "{said}");
    let (said, code) = with(&[("--tls-cert", "cert.pem"), ("--tls-key", "cert.pem")]);
    assert!(code == 2 && said.contains("cert.pem has no private key in PEM"), "{said}");
}
