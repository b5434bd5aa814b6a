//! The keys of people, for the commands and the chat: safety numbers and device lists as text.

use std::error::Error;

use keypool_client::{
    MlsClient, Origin, PeerDevice, PeerDoubt, PeerKeys, PeerStatus, PoolConfig, ServerDelivery,
};
use serde_json::{Value, json};

use crate::{
    Whose,
    output::{plain, print, say},
    pool::{OpenedDevice, date_and_time},
};

/// How many groups of five digits stand in a line.
const GROUPS_IN_A_LINE: usize = 4;

/// Shows the safety number of this user and another one; with `is_same` the user is verified.
pub(crate) async fn verify(whose: &Whose, user: &str, is_same: bool) -> Result<(), Box<dyn Error>> {
    let client = OpenedDevice::open(whose, PoolConfig::default())?.client;
    let Some(number) = client.safety_number(user).await? else {
        return Err(no_device(user).into());
    };
    let Some(peer) = client.peer(user)? else { return Err(no_device(user).into()) };
    if let PeerStatus::Changed { why, .. } = &peer.status {
        let next = format!("`keypool chat`, and there /accept {user}, takes the new keys");
        return Err(format!("{}\n{next}", keys_changed(user, why)).into());
    }
    let is_verified = matches!(peer.status, PeerStatus::Verified { .. });
    if is_same && !is_verified {
        client.verify_peer(user)?;
    }
    let is_verified = is_verified || is_same;
    let value = json!({ "user": user, "safety_number": number, "verified": is_verified });
    let next = if is_verified {
        format!("{user} is verified")
    } else {
        format!(
            "compare it with the number that {user} sees, in person or on the phone; if it is the same: \
             keypool verify {user} --same"
        )
    };
    say(whose.json, &value, &format!("{}\n{next}", number_text(user, &number)))
}

/// Shows the devices of a user, or this device's user's.
pub(crate) async fn devices(whose: &Whose, user: Option<&str>) -> Result<(), Box<dyn Error>> {
    let client = OpenedDevice::open(whose, PoolConfig::default())?.client;
    let user = user.unwrap_or_else(|| client.identity().pool().user());
    let found = client.look_up_peer(user).await?;
    let Some(peer) = found.filter(|peer| !peer.devices.is_empty()) else {
        return Err(no_device(user).into());
    };
    if whose.json {
        let values = peer.devices.iter().map(|device| device_value(&peer, device));
        return values.map(|value| value.to_string()).try_for_each(|line| print(&line));
    }
    print(&devices_text(&client, &peer))
}

fn device_value(peer: &PeerKeys, device: &PeerDevice) -> Value {
    json!({
        "user": peer.user,
        "device": device.device,
        "keyid": device.signature_key,
        "since": device.since,
        "origin": device.origin,
        "trusted": device.is_trusted,
    })
}

/// The text for a user without a registered device.
pub(crate) fn no_device(user: &str) -> String {
    format!("{} has no device at this server; check the name", plain(user))
}

/// The text for keys that do not follow from those that were seen before.
pub(crate) fn keys_changed(user: &str, why: &PeerDoubt) -> String {
    format!("the keys of {user} are not those you have seen before: {}", plain(&why.to_string()))
}

/// A safety number in three lines.
pub(crate) fn number_text(user: &str, number: &str) -> String {
    let groups: Vec<&str> = number.split_whitespace().collect();
    let lines = groups.chunks(GROUPS_IN_A_LINE).map(|line| format!("  {}", line.join(" ")));
    format!("the safety number of you and {user}:\n{}", lines.collect::<Vec<_>>().join("\n"))
}

/// A user's state and devices, one line each.
pub(crate) fn devices_text(client: &MlsClient<ServerDelivery>, peer: &PeerKeys) -> String {
    let user = &peer.user;
    let own = client.identity().pool();
    let state = match &peer.status {
        _ if user == own.user() => "your devices:".to_owned(),
        PeerStatus::FirstSeen => format!("{user}, not verified; /verify {user} compares the keys"),
        PeerStatus::Verified { at } => {
            format!("{user}, verified since {}", date_and_time(*at))
        }
        PeerStatus::Changed { why, .. } => {
            format!("{}; seen before were:", keys_changed(user, why))
        }
    };
    let own = (user == own.user()).then(|| own.device());
    format!("{state}\n{}", device_lines(peer, own))
}

/// A user's devices, one line each: key, since when, and how it came to be the user's.
pub(crate) fn device_lines(peer: &PeerKeys, own: Option<&str>) -> String {
    let width = peer.devices.iter().map(|device| device.device.len()).max().unwrap_or_default();
    let line = |device: &PeerDevice| {
        let here = if own == Some(&device.device) { " (this one)" } else { "" };
        let mark = if device.is_trusted { "" } else { " (!)" };
        format!(
            "  {:width$} {} since {} {}{mark}{here}",
            device.device,
            device.signature_key,
            date_and_time(device.since),
            origin_text(&device.origin, peer)
        )
    };
    peer.devices.iter().map(line).collect::<Vec<_>>().join("\n")
}

fn origin_text(origin: &Origin, peer: &PeerKeys) -> String {
    match origin {
        Origin::First => "the first one".to_owned(),
        Origin::Vouched { by } => {
            let voucher = peer.devices.iter().find(|device| device.signature_key == *by);
            match voucher {
                Some(device) => format!("vouched for by {}", device.device),
                None => "vouched for by a key of before".to_owned(),
            }
        }
        Origin::Recovered => "by the recovery key".to_owned(),
        Origin::Unsigned => "by the server's operator alone".to_owned(),
    }
}
