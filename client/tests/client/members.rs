//! Devices over the server's own delivery, and the text of their mailbox events.

use std::sync::Arc;

use keypool_api::Voucher;
use keypool_client::{MailboxEventKind, MlsClient, PoolConfig, ServerDelivery};
use keypool_ledger::{Clock, GroupId};

use super::service::{Service, group};

pub(crate) type Client = MlsClient<ServerDelivery>;

pub(crate) fn open(service: &Service, name: &str) -> Client {
    let (home, owner) = (service.folder.path().join(name), name.parse().unwrap());
    let clock: Arc<dyn Clock> = service.clock.clone();
    let config = PoolConfig { target: 4, low_watermark: 1, ..PoolConfig::default() };
    let url = service.tunnel.url();
    MlsClient::open_at_server(&home, &owner, &url, (clock, config)).unwrap()
}

/// Alice with a group; everyone else has a pool of that many packages, and is offline.
pub(crate) async fn alice_and(
    service: &Service,
    others: &[&str],
    packages: usize,
) -> (Client, GroupId) {
    for name in others {
        drop(service.device(name, packages).await);
    }
    drop(service.device("alice", 0).await);
    let alice = open(service, "alice");
    let group = group("g");
    alice.create_group(&group).unwrap();
    (alice, group)
}

/// Alice and Bob in a group; both have taken in everything.
pub(crate) async fn alice_and_bob(service: &Service) -> (Client, Client, GroupId) {
    let (alice, group) = alice_and(service, &["bob"], 2).await;
    alice.invite(&group, ["bob"]).await.unwrap();
    let bob = open(service, "bob");
    assert_eq!(told(&bob).await, ["joined by alice/main"]);
    (alice, bob, group)
}

/// The new events, as text, without answers that a device has joined; they are confirmed.
pub(crate) async fn told(client: &Client) -> Vec<String> {
    let mut told = told_all(client).await;
    told.retain(|text| !is_joined(text));
    told
}

/// The new events, as text; they are confirmed.
pub(crate) async fn told_all(client: &Client) -> Vec<String> {
    client.sync(0).await.unwrap();
    all_shown(client)
}

/// The stored events, as text, without answers that a device has joined; they are confirmed.
pub(crate) fn shown(client: &Client) -> Vec<String> {
    let mut shown = all_shown(client);
    shown.retain(|text| !is_joined(text));
    shown
}

fn is_joined(text: &str) -> bool {
    text.ends_with(": Joined")
}

fn all_shown(client: &Client) -> Vec<String> {
    let events = client.events().unwrap();
    if let Some(last) = events.last() {
        client.confirm(last.position).unwrap();
    }
    events.into_iter().map(|event| text(event.kind)).collect()
}

fn text(what: MailboxEventKind) -> String {
    match what {
        MailboxEventKind::Joined { inviter, .. } => format!("joined by {inviter}"),
        MailboxEventKind::InvitationRefused { inviter, why, .. } => {
            format!("refused an invitation by {inviter}: {why}")
        }
        MailboxEventKind::OtherSender { sender, named, .. } => {
            format!("{sender} sent it, not {named}")
        }
        MailboxEventKind::Message { sender, bytes, .. } => {
            format!("{sender}: {}", String::from_utf8(bytes).unwrap())
        }
        MailboxEventKind::Changed(change) => {
            let gone = if change.removed_self { ", and this is me" } else { "" };
            format!("+{:?} -{:?}{gone}", change.added, change.removed)
        }
        MailboxEventKind::Proposed { sender, to_leave: true, .. } => {
            format!("{sender} asks to leave")
        }
        MailboxEventKind::Proposed { sender, .. } => format!("{sender} proposes"),
        MailboxEventKind::Left { members, .. } => format!("{members:?} left"),
        MailboxEventKind::NotReached { members, commit, .. } => {
            let what = if commit { "Commit" } else { "message" };
            format!(
                "{what} missed by {}",
                members.iter().map(ToString::to_string).collect::<String>()
            )
        }
        MailboxEventKind::NotKept { sender: Some(sender), .. } => format!("some of {sender} lost"),
        MailboxEventKind::NotKept { sender: None, .. } => "the group lost".to_owned(),
        MailboxEventKind::RemovedOtherwise { sender, claimed, removed, .. } => {
            format!("{sender} claims -{claimed:?}, and did -{removed:?}")
        }
        MailboxEventKind::SetBack { groups } => format!("set back in {} groups", groups.len()),
        MailboxEventKind::InvitationAnswered { device, answer, .. } => {
            format!("{device}: {answer:?}")
        }
        MailboxEventKind::InvitationResumed { devices, .. } => {
            let devices: Vec<String> = devices.iter().map(ToString::to_string).collect();
            format!("resumed {}", devices.join(", "))
        }
        MailboxEventKind::Unreadable { why, .. } => format!("unreadable: {why}"),
    }
}

pub(crate) fn members(client: &Client, group: &GroupId) -> Vec<String> {
    let mut names: Vec<String> =
        client.members(group).unwrap().into_iter().map(|member| member.name).collect();
    names.sort();
    names
}

/// Both hear each other, and nothing else.
pub(crate) async fn they_talk(one: &Client, other: &Client, group: &GroupId) {
    for (speaker, listener) in [(one, other), (other, one)] {
        speaker.send(group, b"still here").await.unwrap().unwrap();
        let heard = told(listener).await;
        assert_eq!(heard.len(), 1, "{heard:?}");
        assert!(heard[0].ends_with(": still here"), "{heard:?}");
    }
}

/// Another device of a user, vouched for by one that is registered, with a pool.
pub(crate) async fn second_device(service: &Service, first: &Client, name: &str) -> Client {
    let user = first.identity().pool().user().to_owned();
    let second = open(service, &format!("{user}/{name}"));
    let voucher = first.vouch_for(name, &second.identity().signature_key()).await.unwrap();
    // As it is carried from the one to the other.
    let carried: Voucher = voucher.to_string().parse().unwrap();
    second.register_vouched(Some(carried)).await.unwrap();
    second.refresh_key_packages().await.unwrap();
    second
}
