//! `keypool audit`: the checks of the server's statements, and their findings.

use std::{
    error::Error,
    fs,
    io::{ErrorKind, Write},
    path::{Path, PathBuf},
    process::ExitCode,
};

use clap::Args;
use keypool_client::{
    AuditFinding, ExchangeError, NoteKey, OwnerAudit, PoolConfig, Severity, StorageError,
};
use serde_json::{Value, json};

use crate::{
    Whose,
    output::{counted, plain, print, sentence},
    pool::OpenedDevice,
};

/// The options of the audit.
#[derive(Args, Clone, Debug)]
pub(crate) struct AuditOptions {
    /// The key of the server's ledger, as the server prints it when it starts: to be asked of who runs
    /// it, once
    #[arg(long, value_name = "KEY")]
    ledger_key: Option<NoteKey>,
    /// Where evidence goes, if the server has signed two histories; a file that is there is left alone
    #[arg(long, value_name = "FILE")]
    evidence: Option<PathBuf>,
}

/// Fetches the new history, audits everything, and prints the findings.
pub(crate) async fn run(whose: &Whose, options: &AuditOptions) -> Result<ExitCode, Box<dyn Error>> {
    let client = OpenedDevice::open(whose, PoolConfig::default())?.client;
    if let Some(key) = &options.ledger_key {
        client.trust_ledger_key(key)?;
    }
    let silent = match client.fetch_history().await {
        // The audit tells that itself.
        Ok(_) | Err(ExchangeError::Storage(StorageError::MirrorRefused { .. })) => None,
        Err(ExchangeError::Api(error)) => Some(sentence(&error)),
        Err(error) => return Err(error.into()),
    };
    if silent.is_none() {
        client.watch_ledger().await?;
    }
    let audit = client.audit()?;
    tell(whose.json, &audit, silent.as_deref())?;
    save(options.evidence.as_deref(), &audit)?;
    Ok(match audit.severity() {
        Some(Severity::Equivocation) => ExitCode::from(4),
        Some(Severity::Broken) => ExitCode::from(3),
        // What could not be asked for is not fine.
        Some(Severity::Notice) | None if silent.is_some() => ExitCode::FAILURE,
        Some(Severity::Notice) | None => ExitCode::SUCCESS,
    })
}

fn tell(json: bool, audit: &OwnerAudit, silent: Option<&str>) -> Result<(), Box<dyn Error>> {
    if json {
        print(&checked_value(audit, silent).to_string())?;
        return audit.findings.iter().try_for_each(|it| print(&finding_value(it)?.to_string()));
    }
    print(&checked_text(audit))?;
    if let Some(why) = silent {
        print(&format!("the newest is not known: {}", plain(why)))?;
    }
    for finding in &audit.findings {
        print(&format!("{}: {}", finding.severity(), plain(&finding.to_string())))?;
    }
    if audit.findings.is_empty() { print("nothing was found") } else { Ok(()) }
}

fn checked_value(audit: &OwnerAudit, silent: Option<&str>) -> Value {
    json!({
        "events": audit.events,
        "head": audit.head.to_string(),
        "joined": audit.joined,
        "checkpoint": audit.checkpoint,
        "findings": audit.findings.len(),
        "not_asked": silent,
    })
}

fn finding_value(finding: &AuditFinding) -> Result<Value, serde_json::Error> {
    let mut value = serde_json::to_value(finding)?;
    if let Value::Object(fields) = &mut value {
        fields.insert("gravity".to_owned(), json!(finding.severity()));
        fields.insert("says".to_owned(), json!(finding.to_string()));
    }
    Ok(value)
}

/// The scope of the audit, as text.
fn checked_text(audit: &OwnerAudit) -> String {
    let OwnerAudit { events, joined, head, .. } = audit;
    let head: String = head.to_string().chars().take(8).collect();
    let mut lines = vec![match events {
        0 => "the server's history is not known here yet".to_owned(),
        _ => format!(
            "{} of the server's history, each chained to the one before; the last is {head}",
            counted(*events, "event")
        ),
    }];
    lines.push(format!("{} joined here", counted(*joined, "Welcome")));
    lines.push(match &audit.checkpoint {
        None => "no checkpoint of the server's log is known here".to_owned(),
        Some(kept) => {
            let signed = match &kept.key {
                Some(key) => format!("signed by {key}"),
                None => "its signature not checked: say the key with --ledger-key".to_owned(),
            };
            format!("a checkpoint of {} at {} records, {signed}", plain(&kept.origin), kept.size)
        }
    });
    lines.join("\n")
}

/// Saves the first contradiction of checkpoints in a new file.
fn save(file: Option<&Path>, audit: &OwnerAudit) -> Result<(), Box<dyn Error>> {
    let Some(file) = file else { return Ok(()) };
    let Some(evidence) = audit.evidence.first() else { return Ok(()) };
    let written =
        fs::File::create_new(file).and_then(|mut it| it.write_all(evidence.to_file().as_bytes()));
    match written {
        Err(err) if err.kind() != ErrorKind::AlreadyExists => {
            Err(format!("the evidence cannot be written to {}: {err}", file.display()).into())
        }
        Ok(()) | Err(_) => Ok(()),
    }
}
