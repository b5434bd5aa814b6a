//! Session keys: agreed on with the server before the measuring begins, or known to a baseline beforehand.

use keypool_ledger::Hash;
use keypool_projections::{
    signing::{Exchange, Session, SessionId},
    wire::{Base64, SessionReply, SessionRequest},
};

use crate::{
    Outcome,
    client::Connection,
    population::Device,
    request::{Auth, post},
    subject::{Running, Subject},
};

/// Gives each device a session with a subject that runs.
pub(crate) async fn agree(
    running: &Running,
    subject: Subject,
    devices: &mut [Device],
) -> Outcome<()> {
    let mut connection = Connection::open(running.address).await?;
    for device in devices {
        device.session = Some(match subject {
            Subject::Keypool => agreed(&mut connection, device).await?,
            Subject::Baseline(_) => known(device),
        });
    }
    Ok(())
}

/// The session that a device and a baseline both know: it has no way to agree on one.
pub(crate) fn known(device: &Device) -> Session {
    let key = Hash::of(format!("the session of {}", device.pool).as_bytes());
    let id = key.as_bytes().first_chunk().copied().unwrap_or_default();
    Session::with_key(SessionId::from_bytes(id), (*key.as_bytes()).into())
}

async fn agreed(connection: &mut Connection, device: &Device) -> Outcome<Session> {
    // Nobody has to be kept from guessing it here.
    let secret = Hash::of(format!("the exchange of {}", device.pool).as_bytes());
    let exchange = Exchange::new(&(*secret.as_bytes()).into());
    let asked = SessionRequest { public_key: Base64(exchange.public_key().to_vec()) };
    let request = post(Auth::Signed, device, "/devices/sessions", &asked)?;
    let (status, body) = connection.fetch(&request).await?;
    if status != 201 {
        return Err(format!("no session: {status} {}", String::from_utf8_lossy(&body)).into());
    }
    let reply: SessionReply = serde_json::from_slice(&body)?;
    let theirs: [u8; 32] = reply.public_key.0.as_slice().try_into()?;
    let session = exchange.at_device(&theirs, &device.keyid()?, reply.session);
    session.ok_or_else(|| "the server's key cannot be used".into())
}
