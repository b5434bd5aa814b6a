//! Linking a new device of the user, in two chats: the new device shows a word, the other one vouches for it and
//! gives a word back, and brings it into the user's groups once it is registered.

use std::{
    fmt,
    io::{self, IsTerminal},
    str::FromStr,
    time::Duration,
};

use keypool_client::{
    GroupError, GroupId, InviteError, Invited, PoolId, RegisterError, SignatureKey, SkipReason,
    SkippedInvitee, Voucher,
};
use qrcode::{EcLevel, QrCode, render::unicode::Dense1x2};

use super::{
    Chat, ChatEnd,
    commands::{NO_ANSWER, in_time},
    names::person,
};
use crate::{output::sentence, pool::how_to_be_vouched_for};

/// How often a device that vouched for another one looks whether it is registered.
pub(super) const LINK_POLL: Duration = Duration::from_secs(2);
/// How often it looks before it gives up: for the ten minutes of a voucher, and for the packages of the new device
/// as long again.
const LINK_POLLS_MAX: u32 = 600;

/// The text for a word that is none.
const NO_WORD: &str = "that is no word of a new device; it looks like USER/DEVICE/KEY, and the chat of the new \
                       device shows it";

/// A device that asks to be linked, and its key: the word that it shows.
#[derive(Clone, Debug, PartialEq, Eq)]
struct LinkRequest {
    device: PoolId,
    key: SignatureKey,
}

impl fmt::Display for LinkRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.device, self.key)
    }
}

impl FromStr for LinkRequest {
    type Err = &'static str;

    fn from_str(word: &str) -> Result<Self, &'static str> {
        let (device, key) = word.rsplit_once('/').ok_or(NO_WORD)?;
        let is_whole = device.contains('/');
        let device = device.parse().ok().filter(|_| is_whole).ok_or(NO_WORD)?;
        Ok(Self { device, key: key.parse().map_err(|_| NO_WORD)? })
    }
}

/// A device that this one has vouched for, until it is in the user's groups.
#[derive(Debug)]
pub(super) struct LinkedDevice {
    request: LinkRequest,
    /// How often it is looked for again.
    polls_left: u32,
    /// The groups that it is to be brought into; `None` before it is registered.
    groups: Option<Vec<GroupId>>,
}

impl Chat<'_> {
    /// Shows the word by which another device of the user can link this one.
    pub(super) fn ask_to_be_linked(&mut self, refused: RegisterError) {
        let identity = self.client.identity();
        let (device, key) = (identity.pool().clone(), identity.signature_key());
        let (user, name) = (device.user().to_owned(), device.to_string());
        let word = LinkRequest { device, key }.to_string();
        self.screen.say(&format!(
            "{user} has a device already, and {name} is not linked to it\n1. type in the chat of a device of \
             {user}: /link {word}{}\n2. type here the /link line that it shows then\nif no device is left: /quit, \
             and `keypool recover` with the 24 words",
            qr(&word)
        ));
        self.refused = Some(refused);
    }

    /// On a device that is not registered, registers it by a voucher; on another one, vouches for the device of
    /// a word.
    pub(super) async fn link(&mut self, word: &str) -> Result<String, ChatEnd> {
        if self.refused.is_some() { self.be_linked(word).await } else { self.vouch(word).await }
    }

    async fn vouch(&mut self, word: &str) -> Result<String, ChatEnd> {
        let request: LinkRequest = match word.parse() {
            Ok(request) => request,
            Err(why) => return Ok(why.to_owned()),
        };
        let (device, own) = (&request.device, self.client.identity().pool());
        if device.user() != own.user() {
            return Ok(format!("{device} is no device of yours, {}", own.user()));
        }
        let voucher = match in_time(self.client.vouch_for(device.device(), &request.key)).await {
            Some(Ok(voucher)) => voucher.to_string(),
            Some(Err(error)) => return self.told(&error),
            None => return Ok(NO_ANSWER.to_owned()),
        };
        let text = format!(
            "{device} becomes your device by the next line, and reads what is said to you from then on: type it \
             there only if the device is in your hands\nwithin ten minutes: /link {voucher}{}\nit is brought into \
             your groups once it is registered",
            qr(&voucher)
        );
        self.linked = Some(LinkedDevice { request, polls_left: LINK_POLLS_MAX, groups: None });
        Ok(text)
    }

    async fn be_linked(&mut self, word: &str) -> Result<String, ChatEnd> {
        let voucher: Voucher = match word.parse() {
            Ok(voucher) => voucher,
            Err(_) => return Ok("that is not the word that the other device shows".to_owned()),
        };
        let name = self.client.identity().pool().to_string();
        match in_time(self.client.register_vouched(Some(voucher))).await {
            Some(Ok(_)) => {
                self.refused = None;
                (self.is_registered, self.is_refresh_due, self.is_waiting) = (true, true, true);
                Ok(format!("{name} is linked; the other device brings it into your groups"))
            }
            Some(Err(error @ RegisterError::VoucherInvalid(_))) => Ok(format!(
                "{}\ntype the /link line of above on the other device again, and here the new word",
                sentence(&error)
            )),
            Some(Err(error @ RegisterError::IdentityBound(_))) => Ok(format!(
                "{}\nif {name} is another device of yours: /quit, and take another name by --device NAME",
                sentence(&error)
            )),
            Some(Err(error)) => self.told(&error),
            None => Ok(NO_ANSWER.to_owned()),
        }
    }

    /// Looks whether the device that this one has vouched for is registered, and brings it into the groups.
    pub(super) async fn follow_link(&mut self) -> Result<(), ChatEnd> {
        let Some(mut linked) = self.linked.take() else { return Ok(()) };
        let device = linked.request.device.clone();
        let who = person(&device.to_string());
        let groups = match linked.groups.take() {
            Some(groups) => groups,
            None if self.is_linked(&linked.request).await? => {
                self.screen.say(&format!("{who} is linked"));
                self.groups()?
            }
            None => {
                self.wait_for(
                    linked,
                    None,
                    &format!("{who} was not linked in time: /link its word again"),
                );
                return Ok(());
            }
        };
        let mut left = Vec::new();
        for group in groups {
            if !self.brings_in(&device, &group).await? {
                left.push(group);
            }
        }
        if !left.is_empty() {
            let late = format!("{who} has no KeyPackages: /invite {who} once its chat is open");
            self.wait_for(linked, Some(left), &late);
        }
        Ok(())
    }

    fn wait_for(&mut self, linked: LinkedDevice, groups: Option<Vec<GroupId>>, late: &str) {
        match linked.polls_left.checked_sub(1) {
            Some(polls_left) => self.linked = Some(LinkedDevice { polls_left, groups, ..linked }),
            None => self.screen.say(late),
        }
    }

    /// Whether a device is registered with the key that it has shown.
    async fn is_linked(&self, request: &LinkRequest) -> Result<bool, ChatEnd> {
        let LinkRequest { device, key } = request;
        match in_time(self.client.look_up_peer(device.user())).await {
            Some(Ok(Some(own))) => Ok(own
                .devices
                .iter()
                .any(|it| it.device == device.device() && it.signature_key == *key)),
            Some(Err(error)) => self.told(&error).map(|_| false),
            Some(Ok(None)) | None => Ok(false),
        }
    }

    /// Invites a device to a group. Returns false if that is to be tried again.
    async fn brings_in(&mut self, device: &PoolId, group: &GroupId) -> Result<bool, ChatEnd> {
        let Some(outcome) = in_time(self.client.invite(group, [device.clone()])).await else {
            return Ok(false);
        };
        if may_come_later(&outcome) {
            return Ok(false);
        }
        let text = self.invited(&device.to_string(), outcome)?;
        self.screen.say(&text);
        Ok(true)
    }

    /// The end of a chat in which the device was not linked.
    pub(super) fn not_linked(&self, error: &RegisterError) -> ChatEnd {
        let advice = how_to_be_vouched_for(self.client.identity());
        ChatEnd::Broken(format!("{}\n{advice}", sentence(error)).into())
    }
}

/// Whether an invitation has failed for a reason that goes away: the packages of the new device are on their
/// way, or the group is busy.
fn may_come_later(outcome: &Result<Invited, InviteError>) -> bool {
    match outcome {
        Ok(_) => false,
        Err(InviteError::Nobody { missing }) => {
            missing.iter().any(|SkippedInvitee { why, .. }| {
                matches!(why, SkipReason::PoolExhausted | SkipReason::ReservationLost { .. })
            })
        }
        Err(error) => matches!(
            error,
            InviteError::ServerUnreachable(_)
                | InviteError::OtherUnfinished { .. }
                | InviteError::NotAccepted(_)
                | InviteError::Group(GroupError::CommitPending { .. })
        ),
    }
}

/// A word as a QR code on lines of its own, where the output is a terminal.
fn qr(word: &str) -> String {
    let is_drawn = io::stdout().is_terminal();
    let code = is_drawn.then(|| QrCode::with_error_correction_level(word, EcLevel::L));
    match code {
        Some(Ok(code)) => format!("\n{}", drawn(&code)),
        // Who sees no code types the word.
        Some(Err(_)) | None => String::new(),
    }
}

/// A QR code of half blocks, light on a dark ground.
fn drawn(code: &QrCode) -> String {
    let mut drawing = code.render::<Dense1x2>();
    drawing.dark_color(Dense1x2::Light).light_color(Dense1x2::Dark).build()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_word_of_a_new_device_is_read_back_and_nothing_else_is() {
        let key = SignatureKey::new(&[7; 32]).unwrap();
        let request = LinkRequest { device: "alice/phone".parse().unwrap(), key };
        assert_eq!(request.to_string().parse(), Ok(request.clone()));
        for word in ["", "alice/phone", "phone/AAAA", &request.key.to_string()] {
            assert!(word.parse::<LinkRequest>().is_err(), "{word}");
        }
    }

    #[test]
    fn a_word_is_drawn_in_half_blocks() {
        let code = QrCode::with_error_correction_level("alice/phone/KEY", EcLevel::L).unwrap();
        insta::assert_snapshot!(drawn(&code), @"
        █████████████████████████████
        █████████████████████████████
        ████ ▄▄▄▄▄ █ ▄ █ █ ▄▄▄▄▄ ████
        ████ █   █ █ ▀▀▀▀█ █   █ ████
        ████ █▄▄▄█ █▀▀█  █ █▄▄▄█ ████
        ████▄▄▄▄▄▄▄█▄▀ █▄█▄▄▄▄▄▄▄████
        ████ ▄▀▀ ▄▄▀▀ ▀▄ ▀█▄▀ ▄ ▄████
        ████▀▄█▄█▀▄█▀  █▀▀█▀ ▄█ █████
        ████▄██▄▄▄▄█  ██▀▄█▀▀██ ▄████
        ████ ▄▄▄▄▄ █▀▀██▀ ▄█▄██ ▀████
        ████ █   █ █▄▄█▄█▄█▄ █▀▀▀████
        ████ █▄▄▄█ █▀▀▀▄█▀▄▄ █▄██████
        ████▄▄▄▄▄▄▄█▄█▄▄▄▄█▄████▄████
        █████████████████████████████
        ▀▀▀▀▀▀▀▀▀▀▀▀▀▀▀▀▀▀▀▀▀▀▀▀▀▀▀▀▀
        ");
    }
}
