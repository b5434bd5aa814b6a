//! The upkeep that nobody asks for: the pool, the contacts, the keys of groups joined lately, and the audit.

use std::{future::Future, time::Duration};

use keypool_client::{ExchangeError, Refresh, RefreshError, Severity};
use tokio::time::timeout;

use super::{
    Chat, ChatEnd,
    commands::NO_ANSWER,
    keys::{alarm, is_told_apart},
};
use crate::pool::{clock_text, unintroduced};

/// How long a refresh may hold up the next line.
const REFRESH_WAIT: Duration = Duration::from_secs(5);

/// The notice that an inviter used the last-resort package.
const WORN: &str = "your pool was empty, and your last-resort KeyPackage was used; it is withdrawn, and \
                    another one takes its place";

impl Chat<'_> {
    /// Refreshes the pool. Queries the server only if the event stream is not connected or has reported a
    /// reason to.
    pub(super) async fn refresh_if_needed(&mut self) -> Result<(), ChatEnd> {
        if self.client.is_subscribed() {
            self.refresh_by(self.client.refresh_key_packages()).await
        } else {
            self.refresh().await
        }
    }

    /// Refreshes the pool from the server, then renews the device's keys in groups joined lately. Shows
    /// each error once, until a refresh succeeds.
    pub(super) async fn refresh(&mut self) -> Result<(), ChatEnd> {
        self.refresh_by(self.client.refresh_now()).await
    }

    async fn refresh_by(
        &mut self,
        refresh: impl Future<Output = Result<Refresh, RefreshError>>,
    ) -> Result<(), ChatEnd> {
        (self.messages, self.is_refresh_due) = (0, false);
        if !self.is_registered {
            return Ok(());
        }
        let trouble = match timeout(REFRESH_WAIT, refresh).await {
            Ok(Ok(refresh)) => {
                if let Some(offset) = refresh.clock {
                    self.screen.say(&clock_text(offset));
                }
                if !refresh.drift.is_none() && refresh.drift != self.shown_drift {
                    self.screen.say(&refresh.drift.to_string());
                }
                self.shown_drift = refresh.drift;
                if refresh.last_resort_used > 0 {
                    self.screen.say(WORN);
                }
                self.tell_unintroduced(refresh.unintroduced_devices);
                let refused: Vec<String> = refresh.rejected;
                (!refused.is_empty())
                    .then(|| format!("KeyPackages refused: {}", refused.join(", ")))
            }
            Ok(Err(RefreshError::Storage(error))) => Some(self.told(&error)?),
            Ok(Err(RefreshError::Api(error))) if self.is_disowned(&error) => {
                self.disown();
                return self.go_on().await;
            }
            Ok(Err(error)) => Some(self.told(&error)?),
            Err(_) => Some(NO_ANSWER.to_owned()),
        };
        self.key_changes.are_due = true;
        if let Some(trouble) = trouble {
            if self.refresh_trouble.as_ref() != Some(&trouble) && self.mail_trouble.is_none() {
                self.screen.say(&format!("the pool was not refreshed: {trouble}"));
            }
            self.refresh_trouble = Some(trouble);
            return Ok(());
        }
        self.refresh_trouble = None;
        self.tell_contacts().await?;
        self.renew_keys().await
    }

    /// Reports inviters to the server as contacts, so that packages held back from strangers are offered to
    /// them. Inviters that
    /// cannot be reported now are reported after the next refresh.
    async fn tell_contacts(&mut self) -> Result<(), ChatEnd> {
        match timeout(REFRESH_WAIT, self.client.tell_contacts()).await {
            Ok(Err(ExchangeError::Storage(error))) => self.told(&error).map(drop),
            Ok(Ok(_) | Err(_)) | Err(_) => Ok(()),
        }
    }

    /// Shows once each device of this user that no key of the user has introduced.
    fn tell_unintroduced(&mut self, devices: Vec<String>) {
        for device in devices {
            if self.unintroduced.insert(device.clone()) {
                self.screen.say(&unintroduced(&device));
            }
        }
    }

    /// Shows once each user whose keys have changed, and that something else is wrong.
    pub(super) fn audit(&mut self) -> Result<(), ChatEnd> {
        let mut findings = self.client.audit()?.findings;
        findings.retain(|finding| Severity::Notice < finding.severity());
        let known = std::mem::take(&mut self.findings);
        let new = findings.iter().filter(|finding| !known.contains(finding));
        new.filter_map(alarm).for_each(|text| self.screen.say(&text));
        let (told_apart, findings): (Vec<_>, Vec<_>) =
            findings.into_iter().partition(is_told_apart);
        let is_new = findings.iter().any(|finding| !known.contains(finding));
        if is_new {
            let (count, s) = (findings.len(), if findings.len() == 1 { "" } else { "s" });
            self.screen.say(&format!(
                "{count} thing{s} in what the server has told should not be; end the chat, and \
                 `keypool audit` says what"
            ));
        }
        self.findings = told_apart;
        self.findings.extend(findings);
        Ok(())
    }

    /// Replaces the keys that came from a KeyPackage, in groups joined lately. One that fails is tried
    /// again after the next refresh.
    async fn renew_keys(&mut self) -> Result<(), ChatEnd> {
        for group in self.groups()? {
            if self.client.needs_fresh_keys(&group).is_ok_and(|needs| needs) {
                match timeout(REFRESH_WAIT, self.client.update_keys(&group)).await {
                    Ok(Ok(())) => {}
                    Ok(Err(error)) => drop(self.told(&error)?),
                    Err(_) => self.is_waiting = true,
                }
            }
        }
        Ok(())
    }
}
