//! An app that has no Delivery Service of its own: invitations and messages over the server's.
//!
//! `cargo run --example server_delivery`. The other way, with a Delivery Service of the app's own, is
//! `demo.rs`.

use std::{error::Error, process::ExitCode, sync::Arc};

use keypool_client::{MailboxEventKind, MlsClient, PoolConfig, ServerDelivery};
use keypool_ledger::{GroupId, PoolId, SystemClock};
use keypool_server::{Server, Settings};

type Failure = Box<dyn Error>;
type App = MlsClient<ServerDelivery>;

#[expect(clippy::print_stderr, reason = "an example is there to be read")]
fn main() -> ExitCode {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let told = runtime.map_err(Failure::from).and_then(|runtime| runtime.block_on(example()));
    if let Err(error) = told {
        eprintln!("the example failed: {error}");
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}

async fn example() -> Result<(), Failure> {
    let folder = tempfile::tempdir()?;
    let settings = Settings {
        listen: "127.0.0.1:0".parse()?,
        admin_listen: "127.0.0.1:0".parse()?,
        data: folder.path().join("server"),
        ..Settings::default()
    };
    let server = Server::start(settings, Arc::new(SystemClock))?;
    let open = |user: &str| -> Result<App, Failure> {
        let (home, owner) = (folder.path().join(user), PoolId::of(user, None)?);
        let rest = (Arc::new(SystemClock) as _, PoolConfig::default());
        Ok(MlsClient::open_at_server(&home, &owner, &server.url(), rest)?)
    };

    // Once: both register, and fill their pools.
    let (alice, bob) = (open("alice")?, open("bob")?);
    for app in [&alice, &bob] {
        app.register().await?;
        app.refresh_key_packages().await?;
    }

    // Bob is away while Alice invites him and writes.
    drop(bob);
    let group = GroupId::new(b"friday evening")?;
    alice.create_group(&group)?;
    alice.invite(&group, ["bob"]).await?;
    alice.send(&group, b"pizza at eight?").await?;

    // Whenever an app starts, it goes on with what a crash may have left, and takes in what waits.
    let bob = open("bob")?;
    bob.resume_invitations().await?;
    bob.resume_updates().await?;
    bob.resume_outbox().await?;
    show(&bob).await?;
    bob.update_keys(&group).await?;
    bob.send(&group, b"I bring the olives").await?;
    let heard = show(&alice).await?;

    server.stop().await;
    if heard == 1 { Ok(()) } else { Err("Alice heard nothing".into()) }
}

/// Shows new events, and confirms them, so that they do not come again. Returns how many messages
/// there were.
#[expect(clippy::print_stdout, reason = "an example is there to be read")]
async fn show(app: &App) -> Result<usize, Failure> {
    let mut messages = 0;
    for event in app.sync(0).await? {
        match &event.kind {
            MailboxEventKind::Joined { inviter, .. } => println!("joined, invited by {inviter}"),
            MailboxEventKind::Message { sender, bytes, .. } => {
                println!("{sender}: {}", String::from_utf8_lossy(bytes));
                messages += 1;
            }
            MailboxEventKind::InvitationRefused { inviter, why, .. } => {
                println!("refused an invitation in the name of {inviter}: {why}");
            }
            MailboxEventKind::OtherSender { sender, named, .. } => {
                println!("a message of {sender} was said to be of {named}");
            }
            MailboxEventKind::Changed(change) => println!("{} changed the group", change.sender),
            MailboxEventKind::Proposed { sender, to_leave: true, .. } => {
                println!("{sender} asks to leave");
            }
            MailboxEventKind::Proposed { sender, .. } => println!("{sender} proposes a change"),
            MailboxEventKind::Left { members, .. } => println!("{members:?} left"),
            MailboxEventKind::NotReached { members, .. } => {
                println!("{members:?} did not get a message");
            }
            MailboxEventKind::NotKept { .. } => println!("messages of the group were lost"),
            MailboxEventKind::RemovedOtherwise { sender, .. } => {
                println!("{sender} told the server of other removals than it made");
            }
            MailboxEventKind::SetBack { .. } => println!("this home is an older copy of itself"),
            MailboxEventKind::InvitationAnswered { device, answer, .. } => {
                println!("the answer of {device} to its invitation: {answer:?}");
            }
            MailboxEventKind::InvitationResumed { devices, .. } => {
                println!("{devices:?} are in the group now");
            }
            MailboxEventKind::Unreadable { why, .. } => println!("a message cannot be read: {why}"),
        }
        app.confirm(event.position)?;
    }
    Ok(messages)
}
