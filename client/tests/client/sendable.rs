//! Every public future can be moved between threads: apps spawn them on runtimes with many.
//!
//! The functions here are compiled, and never called.

use std::{fs, path::Path};

use keypool_api::{
    AcknowledgeRequest, AwaitRequest, ClaimRequest, CommitRequest, CredentialRequest, GroupRequest,
    LeafKeyRequest, MessageRequest, PolicyRequest, ReconcileRequest, RecoverRequest,
    RecoveryKeyRequest, ReportRequest, ReserveManyRequest, ReserveRequest, RevokeRequest,
    RotatePackagesRequest, SpendRequest, UploadRequest, UsersDevicesRequest,
};
use keypool_client::{
    ApiClient, CommitPost, DeliveryService, EventStream, MlsClient, MlsConnection, PoolListener,
    RecoveryWords, ServerDelivery, fresh_command as id,
};
use keypool_ledger::{GroupId, ReservePolicy, SignatureKey, Timestamp};

fn is_send<T: Send>(_: T) {}

/// The subjects of the calls.
struct Given {
    group: GroupId,
    key: SignatureKey,
    now: Timestamp,
    acknowledge: AcknowledgeRequest,
    wait: AwaitRequest,
    claim: ClaimRequest,
    commit: CommitRequest,
    credential: CredentialRequest,
    leaf_key: LeafKeyRequest,
    make: GroupRequest,
    message: MessageRequest,
    policy: PolicyRequest,
    post: CommitPost,
    reconcile: ReconcileRequest,
    report: ReportRequest,
    reserve: ReserveRequest,
    reserve_many: ReserveManyRequest,
    revoke: RevokeRequest,
    rotate: RotatePackagesRequest,
    spend: SpendRequest,
    upload: UploadRequest,
    users: UsersDevicesRequest,
    recovery: RecoverRequest,
    recovery_key: RecoveryKeyRequest,
    words: RecoveryWords,
}

#[expect(dead_code, reason = "compiled, and never called")]
fn client<D: DeliveryService>(client: &MlsClient<D>, given: &Given) {
    is_send(client.register());
    is_send(client.register_vouched(None));
    is_send(client.register_with_token(""));
    is_send(client.vouch_for("", &given.key));
    is_send(client.remove_device(""));
    is_send(client.rotate_key());
    is_send(client.invalidate_credential_keys());
    is_send(client.refresh_key_packages());
    is_send(client.refresh_now());
    is_send(client.withdraw_from_server(Vec::new()));
    is_send(client.adopt());
    is_send(client.fetch_history());
    is_send(client.watch_ledger());
    is_send(client.tell_contacts());
    is_send(client.listen());
    is_send(client.block(Vec::new()));
    is_send(client.unblock(Vec::new()));
    is_send(client.set_recovery_key(&given.words, None));
    is_send(client.recover(&given.words));
    is_send(client.join(&[]));
    is_send(client.decrypt(&[]));
    is_send(client.look_up_peer(""));
    is_send(client.safety_number(""));
    is_send(client.accept_peer(""));
    is_send(client.check_members(&given.group));
    is_send(client.status());
    is_send(client.invite(&given.group, ["bob"]));
    is_send(client.resume_invitations());
    is_send(client.update_keys(&given.group));
    is_send(client.remove(&given.group, "", None));
    is_send(client.take_up_proposals(&given.group));
    is_send(client.resume_updates());
}

#[expect(dead_code, reason = "compiled, and never called")]
fn client_at_server(client: &MlsClient<ServerDelivery>, given: &Given) {
    is_send(client.sync(0));
    is_send(client.acknowledge_overrun());
    is_send(client.cancel_invitation(&given.group, "bob"));
    is_send(client.send(&given.group, b""));
    is_send(client.resume_outbox());
    is_send(client.leave(&given.group));
    is_send(client.resume_leaving());
    is_send(client.decline(&given.group));
}

#[expect(dead_code, reason = "compiled, and never called")]
fn connection<D: DeliveryService>(connection: &MlsConnection<D>, given: &Given) {
    is_send(connection.set_reserve_policy(ReservePolicy::Contacts));
    is_send(connection.remove_contacts(Vec::new()));
    is_send(connection.block(Vec::new()));
    is_send(connection.unblock(Vec::new()));
    is_send(connection.tell_contacts());
    is_send(connection.vouch_for("", &given.key));
    is_send(connection.introduce(given.now));
    is_send(connection.watch_ledger(given.now));
    is_send(connection.refresh_key_packages(given.now));
    is_send(connection.refresh_now(given.now));
    is_send(connection.withdraw_from_server(Vec::new()));
    is_send(connection.adopt(given.now));
    is_send(connection.status());
    is_send(connection.fetch_history(given.now));
    is_send(connection.post_commit(&given.post));
    is_send(connection.listen());
    is_send(connection.register(None, given.now));
    is_send(connection.remove_device(""));
    is_send(connection.set_recovery_key(&given.words, None));
    is_send(connection.recover(&given.words));
    is_send(connection.rotate_key(given.now));
    is_send(connection.resume_rotation(given.now));
    is_send(connection.invalidate_credential_keys(given.now));
}

#[expect(dead_code, reason = "compiled, and never called")]
fn streams<D: DeliveryService>(listener: &mut PoolListener<'_, D>, stream: &mut EventStream) {
    is_send(listener.next());
    is_send(stream.next());
}

#[expect(dead_code, reason = "compiled, and never called")]
fn api(api: &ApiClient, given: &Given) {
    is_send(api.register(None, id()));
    is_send(api.devices_of(""));
    is_send(api.device_list(""));
    is_send(api.declare_leaf_key(&given.leaf_key, id()));
    is_send(api.declare_credential(&given.credential, id()));
    is_send(api.upload(&given.upload, id()));
    is_send(api.reserve(&given.reserve, id()));
    is_send(api.renew(&given.claim, id()));
    is_send(api.release(&given.claim, id()));
    is_send(api.spend(&given.spend, id()));
    is_send(api.revoke(&given.revoke, id()));
    is_send(api.status());
    is_send(api.events(0, 0));
    is_send(api.make_group(&given.make, id()));
    is_send(api.leave_group(&given.group, id()));
    is_send(api.post_commit(&given.group, &given.commit, id()));
    is_send(api.post_message(&given.group, &given.message, id()));
    is_send(api.mailbox(0, 0, 0));
    is_send(api.acknowledge(&given.acknowledge, id()));
    is_send(api.await_packages(&given.wait, id()));
    is_send(api.remove_device("", id()));
    is_send(api.users_devices(&given.users, id()));
    is_send(api.set_recovery_key(&given.recovery_key, id()));
    is_send(api.recover(&given.recovery, id()));
    is_send(api.rotate_packages(&given.rotate, id()));
    is_send(api.ledger_checkpoint());
    is_send(api.ledger_key());
    is_send(api.ledger_consistency(0, 0));
    is_send(api.reserve_many(&given.reserve_many, id()));
    is_send(api.report(&given.report, id()));
    is_send(api.set_policy(&given.policy, id()));
    is_send(api.policy());
    is_send(api.reconcile(&given.reconcile, id()));
    is_send(api.stream(0));
}

#[test]
fn no_public_future_is_missing_here() {
    let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let folders = ["", "api", "client", "mls", "mls/sync", "mls/delivery", "mls/membership"];
    let public: usize = folders.iter().map(|folder| public_futures(&sources.join(folder))).sum();
    let line_begins = "\n    is_send(";
    assert_eq!(include_str!("sendable.rs").matches(line_begins).count(), public);
}

/// How many public functions of the files in a folder are asynchronous.
fn public_futures(folder: &Path) -> usize {
    let files = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let sources = files.filter(|file| file.is_file()).map(|file| fs::read_to_string(file).unwrap());
    sources.map(|source| source.matches("    pub async fn ").count()).sum()
}
