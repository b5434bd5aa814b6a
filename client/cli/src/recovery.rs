//! `keypool recovery-key` and `keypool recover`: 24 words on paper. They are read from standard input, never
//! from the command line, and are shown once.

use std::{
    error::Error,
    io::{self, BufRead, IsTerminal},
};

use keypool_client::{Code, PoolConfig, RecoverReply, RecoveryError, RecoveryWords};
use serde_json::json;

use crate::{
    Whose,
    output::{print, say, sentence},
    pool::OpenedDevice,
};

/// How many words a recovery key has.
const WORDS: usize = 24;
/// How many words are shown in a line.
const WORDS_IN_A_LINE: usize = 6;

/// Draws the words of the user's recovery key, shows them, and sets it. `has_before` asks for the words of the
/// one before.
pub(crate) async fn set(whose: &Whose, has_before: bool) -> Result<(), Box<dyn Error>> {
    let client = OpenedDevice::open(whose, PoolConfig::default())?.client;
    let before = has_before.then(|| read_words("the 24 words of the recovery key of now"));
    let before = before.transpose()?;
    let words = RecoveryWords::generate()?;
    show(whose.json, &words)?;
    let outcome = client.set_recovery_key(&words, before.as_ref()).await;
    outcome.map_err(|error| not_set(&error))?;
    let user = client.identity().pool().user();
    let text = format!(
        "the recovery key of {user} is set: with these words, `keypool recover` registers a new device and \
         removes all others\nkeep the paper where no device is"
    );
    say(whose.json, &json!({ "user": user, "set": true }), &text)
}

/// Shows words before they are set: set ones that nobody has read would be lost for ever.
fn show(json: bool, words: &RecoveryWords) -> Result<(), Box<dyn Error>> {
    let text = words.to_string();
    let all: Vec<&str> = text.split(' ').collect();
    let lines = all.chunks(WORDS_IN_A_LINE).enumerate().map(|(line, words)| {
        let first = line * WORDS_IN_A_LINE + 1;
        format!("{first:>4}  {}", words.join(" "))
    });
    let lines = lines.collect::<Vec<_>>().join("\n");
    say(
        json,
        &json!({ "words": text }),
        &format!(
            "write these words down now; they are stored nowhere, and not shown again:\n{lines}"
        ),
    )
}

fn not_set(error: &RecoveryError) -> String {
    let text = sentence(error);
    let code = match error {
        RecoveryError::Api(api) if api.is_unanswered() => {
            return format!(
                "{text}\nit is not known whether the words above are the recovery key: keep them, and run this \
                 again; if it is refused then, they are"
            );
        }
        RecoveryError::Api(api) => api.code(),
        _ => None,
    };
    let next = match code {
        Some(Code::RecoveryKeyBound | Code::NotTheRecoveryKey | Code::NotAllowed) => {
            "; if there is a recovery key already, `keypool recovery-key --before` replaces it by its words"
        }
        _ => "",
    };
    format!("{text}\nthe words above are no recovery key{next}")
}

/// Registers this device by the words, and removes all others of the user.
pub(crate) async fn recover(whose: &Whose) -> Result<(), Box<dyn Error>> {
    let client = OpenedDevice::open(whose, PoolConfig::default())?.client;
    let words = read_words("the 24 words of the recovery key")?;
    let reply = client.recover(&words).await.map_err(|error| not_recovered(&error))?;
    say(whose.json, &serde_json::to_value(&reply)?, &recovered_text(&reply))
}

fn not_recovered(error: &RecoveryError) -> String {
    let text = sentence(error);
    match error {
        RecoveryError::Api(api) if api.code() == Some(Code::KeyRetired) => {
            format!(
                "{text}\nthis home's key was removed or replaced: take a new home, --home OTHER"
            )
        }
        _ => text,
    }
}

fn recovered_text(reply: &RecoverReply) -> String {
    let RecoverReply { user, device, removed, .. } = reply;
    let removed = match removed.as_slice() {
        [] => "no other device was registered".to_owned(),
        removed => format!("removed: {}", removed.join(", ")),
    };
    format!(
        "{user}/{device} is registered by the recovery key; {removed}\nnext: keypool refresh; it is in no group: \
         have somebody remove your devices of before from each, and invite you"
    )
}

/// Reads the words from standard input, over as many lines as they take.
fn read_words(what: &str) -> Result<RecoveryWords, Box<dyn Error>> {
    let mut input = io::stdin().lock();
    if input.is_terminal() {
        print(&format!("type {what}, then Enter:"))?;
    }
    let (mut text, mut count) = (String::new(), 0);
    while count < WORDS {
        let before = text.len();
        input.read_line(&mut text)?;
        let read = text.get(before..).unwrap_or_default().trim();
        if read.is_empty() {
            break;
        }
        count += read.split_whitespace().count();
    }
    Ok(text.parse::<RecoveryWords>().map_err(|error| format!("these are not {what}: {error}"))?)
}
