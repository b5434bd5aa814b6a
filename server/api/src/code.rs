//! The error codes: meaning, next step, and whether to try again.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

/// Declares the error codes once: word, whether to try again, meaning, next step.
macro_rules! codes {
    ($($name:ident $word:literal $retryable:literal $title:literal $hint:literal;)*) => {
        /// A stable error code. `keypool explain CODE` prints its meaning.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
        pub enum Code {
            $(#[doc = $title] #[serde(rename = $word)] $name,)*
        }

        impl Code {
            /// Every code, in the order of the documentation.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// The word, as it stands in a problem.
            #[must_use]
            pub const fn word(self) -> &'static str {
                match self { $(Self::$name => $word,)* }
            }

            /// The meaning, in a few words.
            #[must_use]
            pub const fn title(self) -> &'static str {
                match self { $(Self::$name => $title,)* }
            }

            /// The next step.
            #[must_use]
            pub const fn hint(self) -> &'static str {
                match self { $(Self::$name => $hint,)* }
            }

            /// Whether the same request may succeed later.
            #[must_use]
            pub const fn retryable(self) -> bool {
                match self { $(Self::$name => $retryable,)* }
            }
        }
    };
}

codes! {
    BadRequest "bad_request" false "The request cannot be read"
        "Compare it with the API document at /openapi.json.";
    InvalidKeyPackage "invalid_key_package" false "The KeyPackage was not admitted"
        "`check` names the admission check that failed: make a new package that passes it.";
    InvalidName "invalid_name" false "A name or an identifier is not valid"
        "The detail says what a valid one looks like.";
    Unauthenticated "unauthenticated" false "The request is not signed as it must be"
        "Sign it with the registered key of the device (RFC 9421, tag keypool-v1); check the clock.";
    NotAllowed "not_allowed" false "The caller may not do this"
        "Ask as the device that owns the pool, holds the reservation, or is a member of the group.";
    NotAMember "not_a_member" false "The caller is no member of the group"
        "Have a member invite; for a group of your own, draw another id at random.";
    Suspended "suspended" false "The operator has blocked the user"
        "Ask the operator of this server: nothing that a device of the user asks for is carried out until then.";
    InviteeSuspended "invitee_suspended" false "The operator has blocked the user who is to be invited"
        "Leave the user out; only the operator of this server can unblock the user.";
    NotFound "not_found" false "There is nothing at this address"
        "The addresses are listed at /openapi.json.";
    UnknownUser "unknown_user" false "The user or the device is not registered here"
        "Check the name; the owner registers with POST /devices.";
    UnknownKeyPackage "unknown_key_package" false "The KeyPackage is not known here"
        "Check the reference, and that it was uploaded to this server.";
    PoolExhausted "pool_exhausted" true "No KeyPackage is left to hand out"
        "Try again later: the owner's app refills the pool when it comes online.";
    NothingCompatible "nothing_compatible" false "No KeyPackage has a ciphersuite that was asked for"
        "Ask for another ciphersuite, or create the group with one the user supports.";
    RequirementUnmet "requirement_unmet" false "No KeyPackage has a capability that the group requires"
        "Leave the user out, or require less of the group: `requirement` names the capability.";
    MethodNotAllowed "method_not_allowed" false "The address does not take this method"
        "The Allow header lists the methods it takes.";
    RequestTimeout "request_timeout" true "The request's body did not arrive in time"
        "Send it again, over a faster connection.";
    AlreadySpent "already_spent" false "The KeyPackage was used by another reservation"
        "Reserve another package; if a Commit with this one was posted, remove the member again.";
    ReservationLost "reservation_lost" false "The reservation ended and its KeyPackage was handed on"
        "If the Commit is not posted, drop it; if it is, remove the member; then reserve a new package.";
    ReservationMismatch "reservation_mismatch" false "The reservation does not fit this request"
        "Use the id, package and group of one reservation; draw a new random id for a new one.";
    RenewalLimit "renewal_limit" false "The reservation was renewed as often as it may be"
        "Post the Commit now, or release the package and reserve again.";
    IdempotencyMismatch "idempotency_mismatch" false "The Idempotency-Key was used for another request"
        "Draw a new key for a new request; keep the key when repeating one.";
    IdentityBound "identity_bound" false "The name is bound to another key"
        "Use the key that registered first, or another name; an operator can tell who holds it.";
    KeyRetired "key_retired" false "The key was removed or replaced before"
        "Make a new key: one that was removed or rotated away is nobody's ever after.";
    StatementStale "statement_stale" false "The statement was used, or the user's devices have changed since"
        "Fetch the head from GET /users/{user}/devices and sign a new statement.";
    StatementExpired "statement_expired" false "The statement's time does not fit"
        "Sign a new statement: it is good for ten minutes to vouch, for five otherwise; check the clock.";
    RecoveryKeyBound "recovery_key_bound" false "The user has a recovery key, and it has not agreed"
        "Have the recovery key sign the statement; only it lets another one take its place.";
    NotTheRecoveryKey "not_the_recovery_key" false "The statement is not by the user's recovery key"
        "Check the words; a recovery key that was replaced is good for nothing any more.";
    CredentialInUse "credential_in_use" false "Live packages of the device carry another credential"
        "Withdraw them with POST /keypackages/revoke, then declare the credential.";
    NameTaken "name_taken" false "The name differs from another one in capital letters only"
        "Choose another name.";
    TooManyDevices "too_many_devices" false "The user has as many devices as a user may have"
        "Remove a device that is not used any more.";
    Expired "expired" false "The KeyPackage's lifetime is over"
        "Reserve another package.";
    Revoked "revoked" false "The KeyPackage was withdrawn, or reported as unusable"
        "Reserve another package.";
    PoolFull "pool_full" false "The pool holds as many KeyPackages as it may"
        "Upload fewer: `recommended_upload` of the status says how many.";
    EpochTaken "epoch_taken" false "Another Commit was accepted for this epoch"
        "Take in what is in the mailbox, make the Commit anew in the group's epoch, and post that.";
    UnknownGroup "unknown_group" false "The group has no history here"
        "Check the id; POST /groups makes a group.";
    GroupExists "group_exists" false "The group exists already"
        "Draw another group id at random.";
    InvalidMessage "invalid_message" false "The bytes are no MLS message of this group and epoch"
        "Send an MLSMessage that holds a Commit, or application data or a proposal, for this group and epoch.";
    InvitationsFull "invitations_full" true "Too many invitations wait for the device to accept them"
        "Leave the device out, and invite it again after it was online.";
    WaitingListFull "waiting_list_full" false "The caller waits for as many devices as it may"
        "Acknowledge the devices that are available, or stop waiting for some, with POST /keypackages/await.";
    MailboxOverrun "mailbox_overrun" false "The mailbox was over its limits, and something was not kept"
        "Acknowledge what there is; then ask to be removed from and added to the groups again.";
    RateLimited "rate_limited" true "The caller asks for more than it may"
        "Wait for Retry-After seconds; then the same request works.";
    TooManyReservations "too_many_reservations" true "The caller holds as many reservations as it may"
        "Spend or release some, or wait for Retry-After seconds, when the first of them has lapsed.";
    TooLarge "too_large" false "The request is larger than the server takes"
        "Send fewer packages at a time.";
    UnsupportedMediaType "unsupported_media_type" false "The body's type is not one the address takes"
        "Send application/json; a single package may be sent as message/mls.";
    Internal "internal" true "The server failed"
        "Repeat the request with the same Idempotency-Key; tell the operator the X-Request-Id.";
    NotReady "not_ready" true "The server is not ready yet"
        "Wait; /readyz says why.";
    LogUnavailable "log_unavailable" true "The server cannot write its log"
        "Repeat the request with the same Idempotency-Key once the operator has mended it.";
    ClockRegressed "clock_regressed" true "The server's clock has stepped back"
        "Wait until the operator has set the clock.";
    ClockLeapt "clock_leapt" true "The server's clock has leapt ahead"
        "Wait until devices have confirmed the clock, or the operator has set or accepted it.";
    Busy "busy" true "Too many requests are waiting"
        "Repeat the request with the same Idempotency-Key after Retry-After seconds.";
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

/// A word that is no error code.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no error code")]
pub struct UnknownCode(String);

impl FromStr for Code {
    type Err = UnknownCode;

    fn from_str(word: &str) -> Result<Self, UnknownCode> {
        let found = Self::ALL.iter().find(|code| code.word() == word);
        found.copied().ok_or_else(|| UnknownCode(word.to_owned()))
    }
}
