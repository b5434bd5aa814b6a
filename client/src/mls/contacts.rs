//! Contacts: inviters reported to the server as contacts, and the tokens that introduce this user to others.

use std::collections::{BTreeMap, BTreeSet};

use keypool_api::{ContactToken, PolicyReply, PolicyRequest};
use keypool_ledger::{ReservationId, ReservePolicy, Timestamp};
use keypool_projections::ReservationStatus;

use super::{connection::MlsConnection, peers::inviter_of};
use crate::{ApiError, ExchangeError, OwnStage, StorageError, storage::fresh_command};

/// The name of the record of contact tokens.
const TOKENS_RECORD: &str = "contact-tokens";
/// How many reservations one request names.
const NAMED_MAX: usize = 256;

/// The tokens that introduce this user to others, by user.
pub(crate) type ContactTokens = BTreeMap<String, ContactToken>;

impl<D> MlsConnection<D> {
    /// Stores a contact token that another user has issued: invitations of that user present it.
    ///
    /// # Errors
    ///
    /// Returns a [`StorageError`] if the store fails.
    pub fn keep_contact_token(&self, user: &str, token: ContactToken) -> Result<(), StorageError> {
        let staged = self.store().stage()?;
        let mut tokens: ContactTokens = staged.app_record(TOKENS_RECORD)?.unwrap_or_default();
        tokens.insert(user.to_owned(), token);
        staged.put_app_record(TOKENS_RECORD, &tokens)?;
        staged.commit()
    }

    /// Returns the contact tokens that are still valid.
    pub(super) fn contact_tokens(&self, now: Timestamp) -> Result<ContactTokens, StorageError> {
        let mut tokens: ContactTokens =
            self.store().stage()?.app_record(TOKENS_RECORD)?.unwrap_or_default();
        tokens.retain(|_, token| now < token.until());
        Ok(tokens)
    }

    /// Reports the inviters of joined groups to the server as contacts, those whose keys were known when the
    /// group was joined: packages held back from
    /// strangers are offered to them. Call it after a refresh, whose history it reads. Users that the
    /// owner has removed are not reported again. Returns how many were reported.
    ///
    /// # Errors
    ///
    /// Returns an [`ExchangeError`]. Calling it again is harmless.
    pub async fn tell_contacts(&self) -> Result<usize, ExchangeError> {
        let joined = self.joined_of_strangers()?;
        for some in joined.chunks(NAMED_MAX) {
            let request = PolicyRequest { joined: some.to_vec(), ..PolicyRequest::default() };
            self.api().set_policy(&request, fresh_command()).await?;
        }
        Ok(joined.len())
    }

    /// The reservations whose invitations this device has joined, one of each user that the server does
    /// not know as a contact.
    fn joined_of_strangers(&self) -> Result<Vec<ReservationId>, StorageError> {
        let (pool, staged) = (self.store().server_pool(), self.store().stage()?);
        let (contacts, mut told) = (pool.contacts(), BTreeSet::new());
        let mut joined = Vec::new();
        for own in staged.packages_where(|own| matches!(own.stage, OwnStage::Spent { .. })) {
            let OwnStage::Spent { group } = &own.stage else { continue };
            let latest = pool.get(&own.facts.keypackage_ref).and_then(|package| package.latest);
            let Some((id, made)) = latest.and_then(|id| Some((id, pool.reservation(id)?))) else {
                continue;
            };
            let user = made.holder.user();
            let is_spent = matches!(made.status, ReservationStatus::Spent { .. });
            let is_known = contacts.is_contact(user) || contacts.is_removed(user);
            let is_own = user == self.identity().pool().user();
            let inviter = inviter_of(&staged, &own.facts.keypackage_ref)?;
            let is_known = is_known || inviter.is_none_or(|inviter| inviter.user() != user);
            if is_spent && made.group == *group && !is_known && !is_own && told.insert(user) {
                joined.push(id);
            }
        }
        Ok(joined)
    }

    /// Says who may reserve this device's packages: any registered device, or contacts only.
    ///
    /// # Errors
    ///
    /// Returns an [`ApiError`]. Repeating it is harmless.
    pub async fn set_reserve_policy(
        &self,
        reserve: ReservePolicy,
    ) -> Result<PolicyReply, ApiError> {
        let request = PolicyRequest { reserve: Some(reserve), ..PolicyRequest::default() };
        self.api().set_policy(&request, fresh_command()).await
    }

    /// Blocks users: they can neither reserve packages of this device, nor add it to a group, nor post to
    /// it. They are not told.
    ///
    /// # Errors
    ///
    /// Returns an [`ApiError`]. Repeating it is harmless.
    pub async fn block(&self, users: Vec<String>) -> Result<PolicyReply, ApiError> {
        let request = PolicyRequest { blocked: users, ..PolicyRequest::default() };
        self.api().set_policy(&request, fresh_command()).await
    }

    /// Blocks users no more.
    ///
    /// # Errors
    ///
    /// Returns an [`ApiError`]. Repeating it is harmless.
    pub async fn unblock(&self, users: Vec<String>) -> Result<PolicyReply, ApiError> {
        let request = PolicyRequest { unblocked: users, ..PolicyRequest::default() };
        self.api().set_policy(&request, fresh_command()).await
    }

    /// Takes users for strangers again.
    ///
    /// # Errors
    ///
    /// Returns an [`ApiError`]. Repeating it is harmless.
    pub async fn remove_contacts(&self, users: Vec<String>) -> Result<PolicyReply, ApiError> {
        let request = PolicyRequest { removed: users, ..PolicyRequest::default() };
        self.api().set_policy(&request, fresh_command()).await
    }
}
