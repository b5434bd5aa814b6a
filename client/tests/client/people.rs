//! The people of the tests of invitations, and their usual actions.

use std::{sync::Arc, time::Duration};

use keypool_api::{ClaimRequest, ReserveReply, ReserveRequest};
use keypool_client::{InviteError, Invited, MlsClient, Received, SkipReason, fresh_command};
use keypool_ledger::{Clock, GroupId, ReservationId, Timestamp};
use keypool_transparency::SignedArtifact;
use uuid::Uuid;

use super::service::{Mail, Service, group, run};

/// Alice with a group, and Bob with a few packages, who is offline.
pub(crate) async fn alice_and_absent_bob(
    service: &Service,
    packages: usize,
) -> (MlsClient<Mail>, GroupId) {
    drop(service.device("bob", packages).await);
    let alice = service.device("alice", 0).await;
    let group = group("g");
    alice.create_group(&group).unwrap();
    (alice, group)
}

/// Carol, a member of Alice's group.
pub(crate) async fn carol_joins(
    service: &Service,
    alice: &MlsClient<Mail>,
    group: &GroupId,
) -> MlsClient<Mail> {
    let carol = service.device("carol", 2).await;
    alice.invite(group, ["carol"]).await.unwrap();
    carol.join(&service.mail.welcomes("carol")[0]).await.unwrap();
    carol
}

/// Bob comes back, joins by the one Welcome that waits for him, and hears Alice.
pub(crate) async fn bob_joins_and_hears(
    service: &Service,
    alice: &MlsClient<Mail>,
    group: &GroupId,
) {
    let bob = service.open("bob");
    let welcomes = service.mail.welcomes("bob");
    assert_eq!(welcomes.len(), 1);
    let joined = bob.join(&welcomes[0]).await.unwrap();
    assert!(!bob.connection().pool().has_private_keys(&joined.keypackage_ref).unwrap());
    hears(&bob, alice, group).await;
    assert_eq!(alice.members(group).unwrap().len(), 2);
}

/// One hears the other.
pub(crate) async fn hears(listener: &MlsClient<Mail>, speaker: &MlsClient<Mail>, group: &GroupId) {
    let sealed = speaker.encrypt(group, b"hello").unwrap();
    let received = listener.decrypt(&sealed).await.unwrap();
    let heard = matches!(&received, Received::Application { bytes, .. } if bytes == b"hello");
    assert!(heard, "{received:?}");
}

/// The server's counts of Bob's pool: available, reserved, spent.
pub(crate) async fn counts(service: &Service) -> (u64, u64, u64) {
    let counts = service.open("bob").status().await.unwrap().counts;
    (counts.available, counts.reserved, counts.spent)
}

/// Resumes unfinished work, which is one invitation at most.
pub(crate) async fn resume(client: &MlsClient<Mail>) -> Option<Result<Invited, InviteError>> {
    let mut resumed = client.resume_invitations().await.unwrap();
    assert!(resumed.len() <= 1, "{resumed:?}");
    resumed.pop().map(|resumed| resumed.outcome)
}

/// Why the one who was to be invited was not.
#[track_caller]
pub(crate) fn why(refused: &InviteError) -> &SkipReason {
    match refused {
        InviteError::Nobody { missing } if missing.len() == 1 => &missing[0].why,
        other => panic!("{other:?}"),
    }
}

/// A reservation, for a test that makes one by hand.
pub(crate) struct Made {
    pub(crate) claim: ClaimRequest,
    pub(crate) reply: ReserveReply,
}

/// Reserves a package of Bob's.
pub(crate) async fn reserve(by: &MlsClient<Mail>, device: Option<&str>) -> Made {
    reserve_in(by, device, "h").await
}

async fn reserve_in(by: &MlsClient<Mail>, device: Option<&str>, name: &str) -> Made {
    let request = ReserveRequest {
        target_user: "bob".to_owned(),
        target_device: device.map(ToOwned::to_owned),
        group_id: group(name),
        reservation_id: Some(ReservationId(Uuid::new_v4())),
        ciphersuites: Vec::new(),
        required: None,
        contact_token: None,
    };
    let reply = by.connection().api().reserve(&request, fresh_command()).await.unwrap();
    let (keypackage_ref, reservation_id) = (reply.keypackage_ref.clone(), reply.reservation_id);
    Made { claim: ClaimRequest { keypackage_ref, reservation_id }, reply }
}

/// Reserves a package of Bob's for a group.
pub(crate) async fn reserve_for(by: &MlsClient<Mail>, name: &str) -> Made {
    reserve_in(by, None, name).await
}

/// While the next Commit is posted, the reservation of the one package that was handed out lapses and
/// somebody else is handed it; the others stay as they are. These are three requests.
pub(crate) fn be_overtaken(service: &Arc<Service>, by: MlsClient<Mail>) {
    let hurry = Arc::clone(service);
    service.mail.on_commit(move || {
        hurry.clock.advance(Duration::from_secs(121));
        let reservations = std::thread::spawn(move || {
            run(async {
                // The one fresh package first, and then the one that has lapsed.
                let fresh = reserve(&by, None).await;
                assert_eq!(reserve(&by, None).await.reply.generation, 2);
                by.connection().api().release(&fresh.claim, fresh_command()).await.unwrap();
            });
        });
        reservations.join().unwrap();
    });
}

pub(crate) fn now(service: &Service) -> Timestamp {
    service.clock.now()
}

/// Asks a server for its checkpoint until it has so many records: the server has no event for that.
pub(crate) async fn published_to(device: &MlsClient<Mail>, size: u64) {
    let checkpoint = async || {
        let note = device.connection().api().ledger_checkpoint().await.unwrap().unwrap();
        note.parse::<SignedArtifact>().unwrap().checkpoint.size()
    };
    while checkpoint().await < size {}
}
