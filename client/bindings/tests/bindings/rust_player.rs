//! The devices of this language: the same functions that the other languages call.

use std::{collections::BTreeMap, path::PathBuf, sync::Arc};

use keypool_bindings::{Device, DeviceError, DeviceOptions, group_id};
use keypool_client::{GroupId, MailboxEvent, MailboxEventKind, PeerStatus};
use serde_json::{Value, json};
use tokio::runtime::Runtime;

use super::player::Answer;

/// The devices of this process, by their names in the scenario.
pub(crate) struct RustPlayer {
    server: String,
    homes: PathBuf,
    devices: BTreeMap<String, Arc<Device>>,
    runtime: Runtime,
}

impl RustPlayer {
    pub(crate) fn new(server: String, homes: PathBuf) -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        Self { server, homes, devices: BTreeMap::new(), runtime }
    }

    pub(crate) fn play(&mut self, step: &Value) -> Answer {
        let (device, verb) = (text(&step["device"]), text(&step["verb"]));
        let played = if verb == "open" {
            let opened = self.runtime.block_on(self.open(step));
            opened.map(|opened| {
                self.devices.insert(device, opened);
                Value::Null
            })
        } else {
            self.runtime.block_on(play(&self.devices[&device], &verb, &step["args"]))
        };
        played.map_err(|error| {
            let DeviceError::Failed { code, message, request_id, retryable } = error;
            json!({ "code": code, "message": message, "request_id": request_id, "retryable": retryable })
        })
    }

    async fn open(&self, step: &Value) -> Result<Arc<Device>, DeviceError> {
        let home = self.homes.join(text(&step["device"])).to_str().unwrap().to_owned();
        let target = step["args"]["target"].as_u64().map(|target| target.try_into().unwrap());
        let ciphersuites = step["args"]["ciphersuites"].as_array().map(|named| {
            named.iter().map(|number| number.as_u64().unwrap().try_into().unwrap()).collect()
        });
        let options = DeviceOptions { target, ciphersuites, ..DeviceOptions::default() };
        let (user, name) = (text(&step["user"]), text(&step["name"]));
        Device::open(home, user, name, self.server.clone(), Some(options)).await
    }
}

async fn play(device: &Device, verb: &str, args: &Value) -> Result<Value, DeviceError> {
    let user = || text(&args["user"]);
    Ok(match verb {
        "close" => json!(device.close_home().await?),
        "register" => {
            let reply = device.register().await?;
            json!({ "user": reply.user, "device": reply.device })
        }
        "refresh" => {
            let refresh = device.refresh_now().await?;
            json!({ "created": refresh.created, "available": refresh.available })
        }
        "status" => {
            let counts = device.status().await?.counts;
            json!({ "available": counts.available, "reserved": counts.reserved, "spent": counts.spent })
        }
        "resume" => {
            let messages = device.resume_outbox().await?.len();
            let invitations = device.resume_invitations().await?.len();
            json!({ "resumed": messages + invitations + device.resume_updates().await?.len() })
        }
        "sync" => {
            let events = device.sync(0).await?;
            if let Some(last) = events.last() {
                device.confirm(last.position).await?;
            }
            events.into_iter().map(seen).collect()
        }
        "groups" => device.groups().await?.iter().map(name_of).collect(),
        "rotate_key" => json!(device.rotate_key().await?),
        "safety_number" => json!(device.safety_number(user()).await?),
        "verify" => json!(device.verify_peer(user()).await?),
        "peer" => {
            let status = device.peer(user()).await?.map(|peer| peer.status);
            json!({ "verified": matches!(status, Some(PeerStatus::Verified { .. })) })
        }
        "audit" => json!({ "is_sound": device.audit().await?.is_sound }),
        _ => in_group(device, group_id(text(&args["group"]).into_bytes())?, verb, args).await?,
    })
}

/// The steps that name a group.
async fn in_group(
    device: &Device,
    group: GroupId,
    verb: &str,
    args: &Value,
) -> Result<Value, DeviceError> {
    Ok(match verb {
        "create_group" => json!(device.create_group(group).await?),
        "invite" => {
            let invitees = args["invitees"].as_array().unwrap().iter().map(text).collect();
            let invited = device.invite(group, invitees).await?;
            let added: Vec<String> = invited.added.iter().map(|it| it.device.to_string()).collect();
            json!({ "added": added, "missing": invited.missing.len() })
        }
        "send" => {
            let sent = device.send(group, text(&args["text"]).into_bytes()).await?;
            json!({ "sent": sent.is_some() })
        }
        "members" => {
            let members = device.members(group).await?;
            let mut names: Vec<String> = members.into_iter().map(|member| member.name).collect();
            names.sort();
            json!(names)
        }
        "update_keys" => json!(device.update_keys(group).await?),
        "reserve" => {
            let reply = device.reserve(group, text(&args["invitee"])).await?;
            json!({ "keypackage_ref": reply.keypackage_ref, "reservation_id": reply.reservation_id })
        }
        "spend" => {
            let claim = &args["reservation"];
            let package = text(&claim["keypackage_ref"]).parse()?;
            let reservation = text(&claim["reservation_id"]).parse()?;
            let spent = device.spend(group, package, reservation).await?;
            json!({ "late": spent.late, "replayed": spent.replayed })
        }
        other => panic!("{other} is no verb"),
    })
}

/// An event as the scenario has it.
fn seen(event: MailboxEvent) -> Value {
    match event.kind {
        MailboxEventKind::Joined { group, inviter, .. } => {
            json!({ "kind": "joined", "group": name_of(&group), "from": inviter })
        }
        MailboxEventKind::Message { group, sender, bytes, .. } => json!({
            "kind": "message", "group": name_of(&group), "from": sender,
            "text": String::from_utf8(bytes).unwrap(),
        }),
        MailboxEventKind::Changed(change) => {
            json!({ "kind": "changed", "group": name_of(&change.group), "from": change.sender })
        }
        _ => json!({ "kind": "other" }),
    }
}

fn name_of(group: &GroupId) -> String {
    String::from_utf8(group.as_bytes().to_vec()).unwrap()
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_else(|| panic!("{value} is no text")).to_owned()
}
