//! Impostors: leaves in the name of somebody else, members that contradict the directory, and a server that
//! lies about a user's keys.

use std::time::Duration;

use keypool_api::{
    Base64, ClaimRequest, CommitRequest, GroupRequest, UserDevices, UsersDevicesReply,
};
use keypool_client::{
    AuditFinding, ClientOptions, GroupError, JoinError, KeyPolicy,
    LeafContradiction::{FormerKey, OtherKey, UnknownUser},
    LeafTrust, LocalStore, MailboxEvent, MailboxEventKind, MlsClient, OfferedPackage, Origin,
    PackageCheck, PeerDoubt, PeerStatus, PendingAdd, PoolConfig, Received, SkipReason,
    WelcomeFault, fresh_command,
};
use keypool_ledger::{Event, GroupId, SignatureKey};
use keypool_server::Idempotency;
use openmls::{
    credentials::{CredentialWithKey, NewSignerBundle},
    group::MlsGroup,
};
use openmls_basic_credential::SignatureKeyPair;
use openmls_traits::{OpenMlsProvider, types::SignatureScheme};

use super::{
    crowds::{Doll, Poison},
    members::{Client, alice_and, alice_and_bob, open, second_device, told},
    people::{Made, carol_joins, now, published_to, reserve, why},
    service::{Mail, Service, group, run},
};

/// Somebody who uses that name with a key that nobody has registered.
fn impostor(service: &Service, name: &str) -> MlsClient<Mail> {
    service.open_at(&service.folder.path().join("impostor"), name, PoolConfig::default())
}

/// The Commit and the Welcome that bring Bob's reserved package into a group of another's.
fn add_by(by: &MlsClient<Mail>, made: &Made, group: &GroupId, service: &Service) -> PendingAdd {
    let offer = OfferedPackage {
        keypackage_ref: made.reply.keypackage_ref.clone(),
        owner: "bob".parse().unwrap(),
        bytes: made.reply.keypackage.0.clone(),
    };
    by.membership().stage_add(group, &[offer], now(service)).unwrap()
}

#[test]
fn a_welcome_of_an_impostor_with_an_unregistered_key_is_refused_and_costs_no_keys() {
    run(async {
        let service = Service::start();
        let bob = service.device("bob", 1).await;
        let mallory = service.device("mallory", 0).await;
        drop(service.device("alice", 0).await);
        let made = reserve(&mallory, None).await;
        let false_alice = impostor(&service, "alice");
        false_alice.create_group(&group("friday")).unwrap();
        let welcome = add_by(&false_alice, &made, &group("friday"), &service).welcome;
        let refused = bob.join(&welcome).await.unwrap_err();
        let JoinError::Impostor { inviter, why, .. } = &refused else { panic!("{refused:?}") };
        assert_eq!((inviter.as_str(), why), ("alice/main", &OtherKey));
        assert!(bob.groups().unwrap().is_empty());
        assert!(bob.connection().pool().has_private_keys(&made.reply.keypackage_ref).unwrap());
        let audit = bob.audit().unwrap();
        let is_told = |finding: &AuditFinding| matches!(finding, AuditFinding::InvitationRefused { inviter, .. } if inviter == "alice/main");
        assert!(audit.findings.iter().any(is_told), "{:?}", audit.findings);
    });
}

#[test]
fn a_name_that_nobody_has_registered_invites_nobody() {
    run(async {
        let service = Service::start();
        let bob = service.device("bob", 1).await;
        let mallory = service.device("mallory", 0).await;
        let made = reserve(&mallory, None).await;
        let ghost = impostor(&service, "carol");
        ghost.create_group(&group("friday")).unwrap();
        let welcome = add_by(&ghost, &made, &group("friday"), &service).welcome;
        let refused = bob.join(&welcome).await.unwrap_err();
        let unknown = matches!(refused, JoinError::Impostor { why: UnknownUser, .. });
        assert!(unknown, "{refused:?}");
    });
}

/// The leaf says Alice, and its key is one that Mallory has registered under her own name.
#[test]
fn another_users_registered_key_under_alices_name_is_refused() {
    run(async {
        let service = Service::start();
        drop((service.device("bob", 1).await, service.device("alice", 0).await));
        let key = impostor(&service, "alice").identity().signature_key();
        let service = service
            .beneath(async |_, store| {
                let mallory = "mallory".parse().unwrap();
                store.admit_device(&mallory, (key, None), Idempotency::fresh()).await.unwrap();
            })
            .await;
        // To the server this home is Mallory's, whose key it has.
        let mallory = impostor(&service, "alice");
        mallory.create_group(&group("friday")).unwrap();
        let made = reserve(&mallory, None).await;
        let welcome = add_by(&mallory, &made, &group("friday"), &service).welcome;
        let refused = service.open("bob").join(&welcome).await.unwrap_err();
        let other = matches!(refused, JoinError::Impostor { why: OtherKey, .. });
        assert!(other, "{refused:?}");
    });
}

/// The whole way over the server's own delivery: Mallory reserves Bob's package, posts the impostor's Commit,
/// and the server hands over the Welcome.
#[test]
fn an_invitation_in_another_name_is_refused_and_told() {
    run(async {
        let service = Service::start();
        drop(service.device("bob", 1).await);
        let mallory = service.device("mallory", 0).await;
        drop(service.device("alice", 0).await);
        let bob = open(&service, "bob");
        let friday = group("h");
        let api = mallory.connection().api();
        api.make_group(&GroupRequest { group_id: friday.clone() }, fresh_command()).await.unwrap();
        let made = reserve(&mallory, None).await;
        let false_alice = impostor(&service, "alice");
        false_alice.create_group(&friday).unwrap();
        let PendingAdd { commit, welcome, .. } = add_by(&false_alice, &made, &friday, &service);
        let ClaimRequest { keypackage_ref, reservation_id } = made.claim;
        let request = CommitRequest {
            epoch: 0,
            commit: Base64(commit),
            welcomes: vec![Base64(welcome)],
            spend: vec![ClaimRequest { keypackage_ref, reservation_id }],
            removed: Vec::new(),
        };
        api.post_commit(&friday, &request, fresh_command()).await.unwrap();
        let events = bob.sync(0).await.unwrap();
        let refused = events.iter().any(|event| {
            matches!(
                &event.kind,
                MailboxEventKind::InvitationRefused { inviter, why: OtherKey, .. }
                    if inviter == "alice/main"
            )
        });
        assert!(refused, "{events:?}");
        let joined = |event: &MailboxEventKind| matches!(event, MailboxEventKind::Joined { .. });
        assert!(!events.iter().any(|event| joined(&event.kind)), "{events:?}");
        let answer = api.mailbox(0, 1, 0).await.unwrap().items[0].answer.unwrap();
        assert_eq!(answer.reason, Some(WelcomeFault::Untrusted), "the inviter's client is told");
        bob.refresh_key_packages().await.unwrap();
        assert_eq!(bob.connection().tell_contacts().await.unwrap(), 0, "nobody becomes a contact");
    });
}

#[test]
fn a_third_member_that_is_added_later_in_another_name_is_marked_and_nothing_is_sent() {
    run(async {
        let service = Service::start();
        let alice = service.device("alice", 0).await;
        drop(service.device("bob", 2).await);
        let carol = service.device("carol", 0).await;
        // Mallory is a member, and adds an impostor of Carol.
        let mallory = service.device("mallory", 2).await;
        let friday = group("friday");
        alice.create_group(&friday).unwrap();
        alice.invite(&friday, ["mallory"]).await.unwrap();
        mallory.join(&service.mail.welcomes("mallory")[0]).await.unwrap();
        let false_carol = impostor(&service, "carol");
        let made = false_carol.connection().pool().generate_and_store(1, now(&service)).unwrap();
        let offer = OfferedPackage {
            keypackage_ref: made[0].keypackage_ref().clone(),
            owner: "carol".parse().unwrap(),
            bytes: made[0].bytes.clone(),
        };
        let added = mallory.membership().stage_add(&friday, &[offer], now(&service)).unwrap();
        let Received::Changed(change) = alice.decrypt(&added.commit).await.unwrap() else {
            panic!("it is a Commit")
        };
        assert_eq!(change.added, ["carol/main"]);
        let [untrusted] = change.untrusted.as_slice() else { panic!("{change:?}") };
        assert_eq!((untrusted.name.as_str(), &untrusted.why), ("carol/main", &OtherKey));
        let refused = alice.encrypt(&friday, b"who is there?").unwrap_err();
        assert!(matches!(refused, GroupError::UntrustedMembers { .. }), "{refused:?}");
        let trust = |name: &str| {
            let members = alice.members(&friday).unwrap();
            members.into_iter().find(|member| member.name == name).unwrap().trust
        };
        assert_eq!(trust("mallory/main"), LeafTrust::Known);
        assert_eq!(trust("carol/main"), LeafTrust::Contradicts(OtherKey));
        assert_eq!(alice.check_members(&friday).await.unwrap().len(), 1);
        // Once the member is gone, the group is as it was.
        alice.remove(&friday, "carol", None).await.unwrap();
        alice.encrypt(&friday, b"are we alone?").unwrap();
        drop(carol);
    });
}

#[test]
fn an_app_may_mark_only_or_accept() {
    run(async {
        let service = Service::start();
        drop(service.device("alice", 0).await);
        let home = service.folder.path().join("alice");
        let open_with = |policy| {
            let options =
                ClientOptions { key_policy: policy, ..ClientOptions::new(service.clock.clone()) };
            let (owner, url) = ("alice".parse().unwrap(), service.tunnel.url());
            MlsClient::open_with(&home, &owner, &url, service.mail.clone(), options).unwrap()
        };
        let alice = open_with(KeyPolicy::Strict);
        drop(service.device("bob", 1).await);
        let mallory = service.device("mallory", 1).await;
        let friday = group("friday");
        alice.create_group(&friday).unwrap();
        alice.invite(&friday, ["mallory"]).await.unwrap();
        mallory.join(&service.mail.welcomes("mallory")[0]).await.unwrap();
        let false_bob = impostor(&service, "bob");
        let made = false_bob.connection().pool().generate_and_store(1, now(&service)).unwrap();
        let offer = OfferedPackage {
            keypackage_ref: made[0].keypackage_ref().clone(),
            owner: "bob".parse().unwrap(),
            bytes: made[0].bytes.clone(),
        };
        let added = mallory.membership().stage_add(&friday, &[offer], now(&service)).unwrap();
        alice.decrypt(&added.commit).await.unwrap();
        alice.encrypt(&friday, b"no").unwrap_err();
        drop(alice);
        let alice = open_with(KeyPolicy::Mark);
        alice.encrypt(&friday, b"marked only").unwrap();
        drop(alice);
        let alice = open_with(KeyPolicy::Strict);
        alice.encrypt(&friday, b"no").unwrap_err();
        alice.accept_untrusted(&friday).unwrap();
        alice.encrypt(&friday, b"accepted").unwrap();
    });
}

#[test]
fn the_sender_of_a_message_is_known_by_the_key_and_verified_by_a_person() {
    run(async {
        let service = Service::start();
        let (alice, bob, group) = alice_and_bob(&service).await;
        bob.send(&group, b"hello").await.unwrap();
        let trust_of = |events: &[MailboxEvent]| {
            let message = events.iter().find_map(|event| match &event.kind {
                MailboxEventKind::Message { trust, .. } => Some(trust.clone()),
                _ => None,
            });
            message.unwrap()
        };
        let events = alice.sync(0).await.unwrap();
        assert_eq!(trust_of(&events), LeafTrust::Known);
        alice.confirm(events.last().unwrap().position).unwrap();
        let seen = alice.safety_number("bob").await.unwrap().unwrap();
        assert_eq!(bob.safety_number("alice").await.unwrap().unwrap(), seen);
        assert!(alice.verify_peer("bob").unwrap());
        assert!(!alice.verify_peer("nobody").unwrap());
        bob.send(&group, b"it is me").await.unwrap();
        assert_eq!(trust_of(&alice.sync(0).await.unwrap()), LeafTrust::Verified);
    });
}

#[test]
fn a_new_device_that_bobs_introduced_is_his_and_one_that_nobody_did_is_an_alarm() {
    run(async {
        let service = Service::start();
        let (alice, bob, _) = alice_and_bob(&service).await;
        alice.verify_peer("bob").unwrap();
        let phone = second_device(&service, &bob, "phone").await;
        let known = alice.look_up_peer("bob").await.unwrap().unwrap();
        assert!(matches!(known.status, PeerStatus::Verified { .. }), "{known:?}");
        assert_eq!(known.devices.len(), 2);
        assert!(known.devices.iter().all(|device| device.is_trusted), "{known:?}");
        bob.refresh_key_packages().await.unwrap();
        drop(phone);
    });
}

/// Changes the server's answer to the next look-up of Bob.
fn lie(service: &Service, how: impl FnOnce(&mut UserDevices) + Send + 'static) {
    service.tunnel.rewrite_look_up(|body| {
        let mut reply: UsersDevicesReply = serde_json::from_str(body).unwrap();
        let bob = reply.users.iter_mut().find(|shown| shown.user == "bob").unwrap();
        how(bob);
        serde_json::to_string(&reply).unwrap()
    });
}

/// Bob's keys as Alice knows them, after he has been seen once and has linked a phone and a laptop since.
async fn pinned_bob(service: &Service) -> (Client, Client) {
    let (alice, bob, _) = alice_and_bob(service).await;
    drop(second_device(service, &bob, "phone").await);
    (alice, bob)
}

async fn doubt_of_bob(alice: &Client) -> String {
    let known = alice.look_up_peer("bob").await.unwrap().unwrap();
    match known.status {
        PeerStatus::Changed { why: PeerDoubt::ChainRefused { said }, .. } => said,
        other => panic!("{other:?}"),
    }
}

/// A change of the reply to a look-up.
type Lie = fn(&mut UserDevices);

#[test]
fn each_lie_about_a_pinned_user_is_refused_by_its_name() {
    run(async {
        let lies: [(&str, Lie); 6] = [
            ("does not follow from those before it", |shown| {
                // A change of before is told again.
                let mut again = shown.history[0].clone();
                again.position = 1;
                shown.history.insert(0, again);
            }),
            ("keeps changes of bob's devices back", |shown| {
                // The phone's registration is kept back.
                shown.history.clear();
            }),
            ("shows an older list", |shown| {
                shown.history.clear();
                shown.position = 0;
            }),
            ("is of mallory/phone", |shown| {
                shown.history[0].device = "mallory/phone".parse().unwrap();
            }),
            ("is not signed by the key it names", |shown| {
                // The server puts a key of its own in the place of the phone's.
                let Event::Registered { signature_key, .. } = &mut shown.history[0].event else {
                    panic!("the phone was registered")
                };
                *signature_key = SignatureKey::new(&[7; 32]).unwrap();
            }),
            ("keeps changes of bob's devices back", |shown| {
                // A device that nobody has introduced: the head cannot be what the true one is.
                let Event::Registered { statement, voucher, .. } = &mut shown.history[0].event
                else {
                    panic!("the phone was registered")
                };
                (*statement, *voucher) = (None, None);
                let ghost = "bob/ghost".parse().unwrap();
                shown.history[0].device = ghost;
            }),
        ];
        for (said, how) in lies {
            let service = Service::start();
            let (alice, _bob) = pinned_bob(&service).await;
            lie(&service, how);
            let doubt = doubt_of_bob(&alice).await;
            assert!(doubt.contains(said), "{doubt:?} does not say {said:?}");
            // Nobody is invited by keys in doubt, until the person accepts those of now.
            let friday = group("friday");
            alice.create_group(&friday).unwrap();
            let refused = alice.invite(&friday, ["bob"]).await.unwrap_err();
            assert!(matches!(why(&refused), SkipReason::KeysChanged { .. }), "{refused:?}");
            let audit = alice.audit().unwrap();
            let is_told =
                |finding: &AuditFinding| matches!(finding, AuditFinding::KeysChanged { .. });
            assert!(audit.findings.iter().any(is_told), "{:?}", audit.findings);
            let accepted = alice.accept_peer("bob").await.unwrap().unwrap();
            assert_eq!(accepted.status, PeerStatus::FirstSeen);
        }
    });
}

/// A ghost that the server's own list names consistently: only its introduction is missing.
#[test]
fn a_ghost_device_that_the_server_adds_is_neither_invited_nor_believed() {
    run(async {
        let service = Service::start();
        let (alice, bob, _) = alice_and_bob(&service).await;
        // The operator lets a device in by its own word, below the doors.
        drop((alice, bob));
        let service = service
            .beneath(async |clock, store| {
                Doll::new("bob/ghost").settle(clock, store, &[Poison::Nothing]).await;
            })
            .await;
        let (alice, bob) = (open(&service, "alice"), open(&service, "bob"));
        let friday = group("friday");
        alice.create_group(&friday).unwrap();
        let refused = alice.invite(&friday, ["bob/ghost"]).await.unwrap_err();
        let check = PackageCheck::Directory;
        assert_eq!(why(&refused), &SkipReason::PackageRejected { check });
        let known = alice.look_up_peer("bob").await.unwrap().unwrap();
        let ghost = known.devices.iter().find(|device| device.device == "ghost").unwrap();
        assert!(!ghost.is_trusted, "{known:?}");
        let refreshed = bob.refresh_now().await.unwrap();
        assert_eq!(refreshed.unintroduced_devices, ["ghost"], "Bob is told");
        let audit = bob.audit().unwrap();
        let is_told = |finding: &AuditFinding| matches!(finding, AuditFinding::DeviceNotIntroduced { device, .. } if device == "ghost");
        assert!(audit.findings.iter().any(is_told), "{:?}", audit.findings);
    });
}

/// A server that goes on with a copy of its data has another ledger. The statements in the copy are for the one
/// before.
#[test]
fn statements_from_before_a_restored_copy_still_introduce() {
    run(async {
        let service = Service::start();
        let (alice, bob, _) = alice_and_bob(&service).await;
        drop((second_device(&service, &bob, "phone").await, alice, bob));
        let service = service.back_up().await;
        let carol = service.device("carol", 2).await;
        let size = carol.status().await.unwrap().position;
        published_to(&carol, size).await;
        drop(carol);
        let service = service.restore_knowingly().await;
        let dave = service.device("dave", 0).await;
        let known = dave.look_up_peer("bob").await.unwrap().unwrap();
        assert_eq!(known.status, PeerStatus::FirstSeen);
        let phone = known.devices.iter().find(|device| device.device == "phone").unwrap();
        assert!(matches!(phone.origin, Origin::Vouched { .. }), "{known:?}");
    });
}

/// A thief has a copy of Alice's home, and Alice has replaced her key since.
#[test]
fn a_key_that_was_replaced_invites_nobody_a_day_later() {
    run(async {
        let service = Service::start();
        drop(service.device("bob", 2).await);
        let mallory = service.device("mallory", 0).await;
        drop(service.device("alice", 1).await);
        service.back_up_home("alice");
        let alice = service.open("alice");
        alice.rotate_key().await.unwrap();
        let made = reserve(&mallory, None).await;
        let thief = service.folder.path().join("older alice");
        let thief = service.open_at(&thief, "alice", PoolConfig::default());
        thief.create_group(&group("friday")).unwrap();
        let welcome = add_by(&thief, &made, &group("friday"), &service).welcome;
        service.clock.advance(Duration::from_hours(25));
        let refused = service.open("bob").join(&welcome).await.unwrap_err();
        let former = matches!(refused, JoinError::Impostor { why: FormerKey, .. });
        assert!(former, "{refused:?}");
    });
}

/// A Commit by which a member's leaf gets a key that nobody has registered.
fn swap_key(service: &Service, name: &str, group: &GroupId) -> Vec<u8> {
    let home = service.folder.path().join(name);
    let store = LocalStore::open(&home, &name.parse().unwrap()).unwrap();
    let staged = store.stage().unwrap();
    let provider = staged.provider();
    let id = openmls::group::GroupId::from_slice(group.as_bytes());
    let mut state = MlsGroup::load(&staged, &id).unwrap().unwrap();
    let leaf = state.own_leaf_node().unwrap();
    let (credential, key) = (leaf.credential().clone(), leaf.signature_key().as_slice().to_vec());
    let old = SignatureKeyPair::read(&staged, &key, SignatureScheme::ED25519).unwrap();
    let new = SignatureKeyPair::new(SignatureScheme::ED25519).unwrap();
    let signature_key = new.public().into();
    let credential_with_key = CredentialWithKey { credential, signature_key };
    let new = NewSignerBundle { signer: &new, credential_with_key };
    let made = state
        .commit_builder()
        .force_self_update(true)
        .load_psks(provider.storage())
        .unwrap()
        .build_with_new_signer(provider.rand(), provider.crypto(), &old, new, |_| true)
        .unwrap()
        .stage_commit(&provider)
        .unwrap();
    made.commit().to_bytes().unwrap()
}

#[test]
fn a_member_that_swaps_its_key_is_marked_and_once_accepted_stays_so() {
    run(async {
        let service = Service::start();
        let alice = service.device("alice", 0).await;
        let friday = group("friday");
        alice.create_group(&friday).unwrap();
        drop(carol_joins(&service, &alice, &friday).await);
        let commit = swap_key(&service, "carol", &friday);
        let Received::Changed(change) = alice.decrypt(&commit).await.unwrap() else {
            panic!("it is a Commit")
        };
        let [untrusted] = change.untrusted.as_slice() else { panic!("{change:?}") };
        assert_eq!((untrusted.name.as_str(), &untrusted.why), ("carol/main", &OtherKey));
        alice.encrypt(&friday, b"no").unwrap_err();
        alice.accept_untrusted(&friday).unwrap();
        alice.encrypt(&friday, b"accepted").unwrap();
        assert_eq!(
            alice.check_members(&friday).await.unwrap(),
            [],
            "as long as the key is the same"
        );
        alice.encrypt(&friday, b"still").unwrap();
    });
}

/// The server says of an item in the mailbox that somebody else has posted it.
#[test]
fn a_server_that_names_another_sender_is_told_of() {
    run(async {
        let service = Service::start();
        let (alice, bob, group) = alice_and_bob(&service).await;
        bob.send(&group, b"hello").await.unwrap();
        // Both names are of one length, and so the answer is.
        service.tunnel.tamper(0, |answer| {
            answer.replace("\"sender\":\"bob/main\"", "\"sender\":\"eve/main\"")
        });
        let events = alice.sync(0).await.unwrap();
        let is_told = |event: &MailboxEvent| {
            matches!(
                &event.kind,
                MailboxEventKind::OtherSender { sender, named, .. }
                    if sender == "bob/main" && named.to_string() == "eve/main"
            )
        };
        assert!(events.iter().any(is_told), "{events:?}");
    });
}

#[test]
fn a_join_of_a_crowd_asks_once_for_all_and_not_at_all_when_they_are_known() {
    run(async {
        let service = Service::start();
        let (alice, group) = alice_and(&service, &["bob", "carol", "dave"], 2).await;
        alice.invite(&group, ["bob", "carol"]).await.unwrap();
        let bob = open(&service, "bob");
        assert_eq!(told(&bob).await, ["joined by alice/main"]);
        for user in ["alice", "carol"] {
            assert!(bob.peer(user).unwrap().is_some(), "{user} was looked up");
        }
        assert!(bob.peer("dave").unwrap().is_none());
    });
}

#[test]
fn an_own_delivery_services_members_are_checked_too() {
    run(async {
        let service = Service::start();
        let alice = service.device("alice", 0).await;
        let friday = group("friday");
        alice.create_group(&friday).unwrap();
        let carol = carol_joins(&service, &alice, &friday).await;
        let trust = |client: &MlsClient<Mail>, name: &str| {
            let members = client.members(&friday).unwrap();
            members.into_iter().find(|member| member.name == name).unwrap().trust
        };
        assert_eq!(trust(&carol, "alice/main"), LeafTrust::Known);
        assert_eq!(trust(&carol, "carol/main"), LeafTrust::Verified, "her own leaf");
        assert_eq!(trust(&alice, "carol/main"), LeafTrust::Known);
    });
}
