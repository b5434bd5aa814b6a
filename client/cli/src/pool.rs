//! The commands that keep a pool and show it.

use std::error::Error;

use comfy_table::{Table, presets::UTF8_FULL_CONDENSED};
use keypool_client::{
    ClientOptions, ClockOffset, DeviceIdentity, Issue, KeyPackageRef, MlsClient, PoolConfig,
    PoolStatus, Refresh, RegisterError, RegisterReply, RemoveReply, ServerDelivery, TimelineEntry,
    Timestamp, Voucher,
};
use serde_json::json;

use crate::{
    CliCommand, Whose, device_key,
    output::{bar, counted, print, say, sentence},
};

/// Carries one of them out.
pub(crate) async fn carry_out(whose: &Whose, command: &CliCommand) -> Result<(), Box<dyn Error>> {
    let config = match command {
        CliCommand::Refresh(size) | CliCommand::RotateKey(size) | CliCommand::Adopt(size) => {
            size.config()
        }
        _ => PoolConfig::default(),
    };
    OpenedDevice::open(whose, config)?.carry_out(whose, command).await
}

/// A device, opened for one command.
pub(crate) struct OpenedDevice {
    pub(crate) client: MlsClient<ServerDelivery>,
}

impl OpenedDevice {
    pub(crate) fn open(whose: &Whose, pool: PoolConfig) -> Result<Self, Box<dyn Error>> {
        let (owner, home) = whose.device()?;
        let device_key = whose.device_key()?;
        let options = ClientOptions { pool, device_key, ..ClientOptions::default() };
        let client = MlsClient::open_at_server(home, &owner, &whose.server, options)?;
        client.set_registration_token(whose.token.clone());
        Ok(Self { client })
    }

    async fn carry_out(&self, whose: &Whose, command: &CliCommand) -> Result<(), Box<dyn Error>> {
        match command {
            CliCommand::Register { voucher } => {
                let reply = self.register(voucher.clone()).await?;
                let text = format!(
                    "{}/{} is registered; its key is {}\nnext: keypool refresh",
                    reply.user, reply.device, reply.keyid
                );
                say(whose.json, &serde_json::to_value(&reply)?, &text)
            }
            CliCommand::Vouch { other, keyid } => {
                let voucher = self.client.vouch_for(other, keyid).await?;
                let text = format!(
                    "on {}/{other}, within ten minutes: keypool register --voucher {voucher}",
                    self.client.identity().pool().user()
                );
                say(whose.json, &serde_json::to_value(&voucher)?, &text)
            }
            CliCommand::Status => {
                let status = self.client.status().await?;
                say(whose.json, &serde_json::to_value(&status)?, &status_text(&status))
            }
            CliCommand::Refresh(_) => tell_refresh(whose.json, &self.client.refresh_now().await?),
            CliCommand::Adopt(_) => tell_refresh(whose.json, &self.client.adopt().await?),
            CliCommand::History { keypackage_ref, own } => {
                if !own {
                    self.client.fetch_history().await?;
                }
                self.history(whose.json, keypackage_ref.as_deref().unwrap_or_default(), *own)
            }
            CliCommand::Doctor { repair } => self.check_up(whose.json, *repair).await,
            CliCommand::RotateKey(_) => self.rotate_key(whose.json).await,
            CliCommand::RemoveDevice { other, with_introduced } => {
                self.remove(whose.json, other, *with_introduced).await
            }
            CliCommand::Withdraw => {
                let count = self.client.invalidate_credential_keys().await?;
                let text = format!("{count} packages are withdrawn\nnext: keypool refresh");
                say(whose.json, &json!({ "withdrawn": count }), &text)
            }
            CliCommand::Reseal { new_passphrase_file } => {
                self.client.change_device_key(&device_key(new_passphrase_file.as_deref())?)?;
                let text = match new_passphrase_file {
                    Some(_) => "the device's keys are sealed with the new passphrase",
                    None => "the device's keys are sealed with a new key file in the home",
                };
                say(whose.json, &json!({ "resealed": true }), text)
            }
            CliCommand::Explain { .. }
            | CliCommand::MoveStore { .. }
            | CliCommand::Chat(_)
            | CliCommand::Audit(_)
            | CliCommand::Verify { .. }
            | CliCommand::Devices { .. }
            | CliCommand::RecoveryKey { .. }
            | CliCommand::Recover => Ok(()),
        }
    }

    /// Replaces the device's key, and fills the pool with packages of the new one.
    async fn rotate_key(&self, json: bool) -> Result<(), Box<dyn Error>> {
        let keyid = self.client.rotate_key().await?;
        let refresh = self.client.refresh_now().await?;
        let value = json!({ "keyid": keyid, "available": refresh.available });
        let text = format!(
            "the key is {keyid} now; {} new packages are available\nthe chat brings it into \
             your groups",
            refresh.available
        );
        say(json, &value, &text)
    }

    /// Removes a device of the user, and with `with_introduced` also the devices that it vouched for, except
    /// this one.
    async fn remove(
        &self,
        json: bool,
        device: &str,
        with_introduced: bool,
    ) -> Result<(), Box<dyn Error>> {
        let own = self.client.identity().pool().device();
        if with_introduced && device == own {
            return Err(format!(
                "{own} is this device, and no device is removed once it is: run this on a device that stays"
            )
            .into());
        }
        let introduced = self.remove_one(json, device, with_introduced).await?;
        for device in introduced.iter().filter(|_| with_introduced) {
            self.remove_one(json, device, true).await?;
        }
        Ok(())
    }

    /// Removes one device, and returns the other devices that it vouched for, without this one.
    async fn remove_one(
        &self,
        json: bool,
        device: &str,
        with_introduced: bool,
    ) -> Result<Vec<String>, Box<dyn Error>> {
        let reply = self.client.remove_device(device).await?;
        let mut introduced = reply.introduced.clone();
        introduced.retain(|device| device != self.client.identity().pool().device());
        let shown = if with_introduced { &[] } else { introduced.as_slice() };
        say(json, &serde_json::to_value(&reply)?, &removed_text(&reply, shown))?;
        Ok(introduced)
    }

    /// Registers the device. Where another device of the user could help, how it can is said.
    async fn register(&self, voucher: Option<Voucher>) -> Result<RegisterReply, Box<dyn Error>> {
        match self.client.register_vouched(voucher).await {
            Err(error @ RegisterError::IdentityBound(_)) => Err(format!(
                "{}\n{}",
                sentence(&error),
                how_to_be_vouched_for(self.client.identity())
            )
            .into()),
            Err(error @ RegisterError::KeyRetired(_)) => {
                Err(format!("{}\n{KEY_RETIRED}", sentence(&error)).into())
            }
            Err(error @ RegisterError::VoucherInvalid(_)) => {
                Err(format!("{}\n{VOUCHER_USED}", sentence(&error)).into())
            }
            outcome => Ok(outcome?),
        }
    }

    /// Prints the doctor's report, and repairs its issues if that was asked for. Remaining issues are an error.
    async fn check_up(&self, json: bool, repair: bool) -> Result<(), Box<dyn Error>> {
        // What the server may hand out is known from its history alone.
        let server = self.client.fetch_history().await.err();
        let checkup = if repair { self.client.repair()? } else { self.client.check_up()? };
        let findings: Vec<String> = checkup.findings.iter().map(ToString::to_string).collect();
        let value = json!({
            "findings": findings,
            "to_withdraw": checkup.to_withdraw,
            "repaired": checkup.repaired,
            "deletion": self.client.erasure().to_string(),
        });
        let mut lines = vec![checkup.to_string().trim_end().to_owned()];
        lines.push(format!("deleted keys: {}", self.client.erasure()));
        let unknown = |error| format!("what the server has is not known: {}", sentence(&error));
        lines.extend(server.map(unknown));
        say(json, &value, &lines.join("\n"))?;
        if repair && !checkup.to_withdraw.is_empty() {
            self.client.withdraw_from_server(checkup.to_withdraw).await?;
        }
        let is_left = |finding: &Issue| !(repair && finding.is_repairable());
        match checkup.findings.iter().filter(|finding| is_left(finding)).count() {
            0 => Ok(()),
            _ if repair => Err("not everything could be repaired".into()),
            _ => Err("something is not as it should be; `keypool doctor --repair` mends it".into()),
        }
    }

    fn history(&self, json: bool, begins: &str, own: bool) -> Result<(), Box<dyn Error>> {
        let mut moments =
            if own { self.client.own_history(None)? } else { self.client.history(None)? };
        moments.retain(|moment| begins.is_empty() || is_of(moment, begins));
        if json {
            return moments.iter().try_for_each(|moment| print(&serde_json::to_string(moment)?));
        }
        if moments.is_empty() && begins.is_empty() {
            return print("nothing has happened yet; `keypool refresh` fills the pool");
        }
        if moments.is_empty() {
            return Err(format!("no package here has a reference that begins with {begins}").into());
        }
        print(&history_table(&moments).to_string())
    }
}

/// The advice for a device whose key was removed or replaced.
pub(crate) const KEY_RETIRED: &str = "this device was removed, or its home is an old copy: its key is nobody's \
                                      ever after; register with a new home, --home OTHER, and have it \
                                      vouched for on a device that is left";
/// The advice for a voucher that is no longer valid.
const VOUCHER_USED: &str = "this voucher was used or is too old: make another with `keypool vouch`";

/// The text for a removed device, with advice for the devices that it vouched for and that are left.
fn removed_text(reply: &RemoveReply, introduced: &[String]) -> String {
    let RemoveReply { user, device, .. } = reply;
    let mut lines = vec![
        format!(
            "{user}/{device} is removed: nobody is given a package of it, and its key is nobody's any more"
        ),
        "remove it from your groups as well; it comes back with a new key and a voucher".to_owned(),
    ];
    if !introduced.is_empty() {
        let devices = introduced.join(", ");
        lines.push(format!("it had introduced {devices}: remove them as well if it was stolen"));
        let each = introduced.iter().map(|device| format!("keypool remove-device {device}"));
        lines.extend(each);
    }
    lines.join("\n")
}

/// The advice for a user who has a device already.
pub(crate) fn how_to_be_vouched_for(identity: &DeviceIdentity) -> String {
    let (pool, keyid) = (identity.pool(), identity.signature_key());
    format!(
        "if {} is yours: type `keypool vouch {} {keyid}` on a registered device of {}, and here what it \
         prints",
        pool.user(),
        pool.device(),
        pool.user()
    )
}

/// Whether an event is of a package whose reference begins so.
pub(crate) fn is_of(moment: &TimelineEntry, begins: &str) -> bool {
    let name = moment.keypackage_ref.as_ref().map(ToString::to_string);
    name.is_some_and(|name| name.starts_with(begins))
}

fn status_text(status: &PoolStatus) -> String {
    let counts = &status.counts;
    let mut lines = vec![
        format!("{}/{}  {}", status.user, status.device, status.pool_health),
        format!("{} {} available", bar(counts.available), counts.available),
        format!(
            "reserved {}, spent {}, expired {}, revoked {}, uploaded {} in all",
            counts.reserved, counts.spent, counts.expired, counts.revoked, counts.total
        ),
        format!("expiring within two days: {}", status.expiring_soon),
        format!("of last resort: {}", counts.last_resort),
    ];
    if 1 < counts.suites.len() {
        let each = counts
            .suites
            .iter()
            .map(|suite| format!("{} of ciphersuite {}", suite.available, suite.ciphersuite));
        lines.insert(2, format!("of these {}", each.collect::<Vec<_>>().join(", ")));
    }
    if let Some(seconds) = status.seconds_to_empty {
        lines.push(format!("at today's pace it lasts {} hours", seconds / 3600));
    }
    lines.push(format!("next: {}", status.recommended_action));
    lines.join("\n")
}

fn refresh_text(refresh: &Refresh) -> String {
    let mut lines = vec![format!(
        "{}, {} expired, {} uploaded again, {} made and uploaded",
        counted(refresh.events, "new event"),
        counted(refresh.expired, "package"),
        refresh.reuploaded,
        refresh.created
    )];
    lines.extend(refresh.clock.map(clock_text));
    if !refresh.drift.is_none() {
        lines.push(refresh.drift.to_string());
    }
    lines.extend(refresh.rejected.iter().map(|rejected| format!("rejected {rejected}")));
    if refresh.last_resort_used > 0 {
        let what = "the pool was empty, and your last-resort package was used; it is withdrawn";
        lines.push(what.to_owned());
    }
    if refresh.last_resort_uploaded > 0 {
        lines.push("a new package of last resort stands behind the others".to_owned());
    }
    lines.extend(refresh.unintroduced_devices.iter().map(|device| unintroduced(device)));
    lines.push(format!("{} packages available", refresh.available));
    lines.join("\n")
}

/// Prints a refresh. One that leaves nothing to hand out is an error.
fn tell_refresh(json: bool, refresh: &Refresh) -> Result<(), Box<dyn Error>> {
    say(json, &serde_json::to_value(refresh)?, &refresh_text(refresh))?;
    if refresh.available == 0 {
        return Err(nothing_available(refresh).into());
    }
    Ok(())
}

/// Why nobody can be handed a package of this device after a refresh.
fn nothing_available(refresh: &Refresh) -> String {
    let why = match (refresh.clock, refresh.rejected.first()) {
        (Some(ClockOffset { corrected: false, .. }), _) => {
            "this device's clock is wrong; set it, then refresh again".to_owned()
        }
        (_, Some(rejected)) => format!("the server has refused packages ({rejected})"),
        (_, None) => {
            "the server has no room for more, or others hold all of them; `keypool status` \
                      tells which"
                .to_owned()
        }
    };
    format!("nobody can invite this device now: no package is available; {why}")
}

/// The sentence about a device's clock that is off.
pub(crate) fn clock_text(ClockOffset { device_ahead_s, corrected }: ClockOffset) -> String {
    let direction = if device_ahead_s < 0 { "behind" } else { "ahead of" };
    let by = span(device_ahead_s.unsigned_abs());
    let rest = if corrected {
        "keypool goes by the server's time"
    } else {
        "the server has not shown its time by its ledger's key, so keypool cannot go by it: set this clock"
    };
    format!("this device's clock is {by} {direction} the server's; {rest}")
}

/// A span of seconds in its largest unit, rounded.
fn span(seconds: u64) -> String {
    let (count, unit) = match seconds {
        0..90 => (seconds, "second"),
        90..5400 => ((seconds + 30) / 60, "minute"),
        5400..129_600 => ((seconds + 1800) / 3600, "hour"),
        _ => ((seconds + 43_200) / 86_400, "day"),
    };
    format!("{count} {unit}{}", if count == 1 { "" } else { "s" })
}

/// The alarm for a device of this user that no key of the user has introduced.
pub(crate) fn unintroduced(device: &str) -> String {
    format!(
        "your device {device} was introduced by no key of yours: if it is not yours, `keypool remove-device \
         {device}`, and ask who runs the server how it came to be registered"
    )
}

/// Events as a table.
pub(crate) fn history_table(moments: &[TimelineEntry]) -> Table {
    let mut table = Table::new();
    table.load_preset(UTF8_FULL_CONDENSED).set_header(["version", "time", "package", "event", ""]);
    for moment in moments {
        let package = moment.keypackage_ref.as_ref().map(KeyPackageRef::short).unwrap_or_default();
        table.add_row([
            moment.version.to_string(),
            date_and_time(moment.at),
            package,
            moment.event.clone(),
            moment.detail.clone(),
        ]);
    }
    table
}

/// A time as people write it, in UTC.
pub(crate) fn date_and_time(at: Timestamp) -> String {
    let millis = i64::try_from(at.as_millis()).unwrap_or(i64::MAX);
    match jiff::Timestamp::from_millisecond(millis) {
        Ok(time) => time.strftime("%Y-%m-%d %H:%M:%S").to_string(),
        Err(_) => at.to_string(),
    }
}
