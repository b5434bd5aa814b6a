//! The device: its home, and how its calls are run.

mod groups;
mod keys;
mod mailbox;
mod peers;
mod reservations;
mod upkeep;

use std::{future::Future, ops::Deref, path::Path, sync::Arc};

use keypool_client::{MlsClient, PoolId, ServerDelivery};
use tokio::sync::{OwnedRwLockReadGuard, RwLock};

use crate::{DeviceError, DeviceOptions, runtime::run};

type Client = MlsClient<ServerDelivery>;

/// One device: its keys and groups in a home folder, its pool and its mailbox at a server.
///
/// Calls may be made from several threads and tasks at once. Nothing runs in the background between calls.
#[derive(uniffi::Object)]
pub struct Device {
    name: PoolId,
    client: Arc<RwLock<Option<Client>>>,
}

/// The client of a device that is open, and stays so as long as this is there.
struct OpenClient(OwnedRwLockReadGuard<Option<Client>, Client>);

impl Deref for OpenClient {
    type Target = Client;

    fn deref(&self) -> &Client {
        &self.0
    }
}

#[uniffi::export]
impl Device {
    /// Opens a device's home, and makes its keys if it has none. Nothing is sent.
    ///
    /// When the app starts: `resume_outbox`, `resume_invitations` and `resume_updates` finish operations that a crash
    /// has interrupted, and `sync` returns the events of the meantime.
    ///
    /// # Errors
    ///
    /// Returns the code `home_in_use` if another device object or process has the home open, `invalid_name`,
    /// `invalid_options`, `invalid_address`, or another one of the home.
    #[uniffi::constructor(default(options = None))]
    pub async fn open(
        home: String,
        user: String,
        device: String,
        server: String,
        options: Option<DeviceOptions>,
    ) -> Result<Arc<Self>, DeviceError> {
        run(async move {
            let (home, name) = (Path::new(&home), PoolId::new(&user, &device)?);
            let options = options.unwrap_or_default().into_client_options(home)?;
            let client = MlsClient::open_at_server(home, &name, &server, options)?;
            let client = Arc::new(RwLock::new(Some(client)));
            Ok::<_, DeviceError>(Arc::new(Self { name, client }))
        })
        .await
    }

    /// Closes the home, so that it can be opened again at once. Waits for the calls that run: cancel a `sync` that
    /// waits. Every later call returns the code `closed`; closing twice is harmless.
    ///
    /// # Errors
    ///
    /// Returns the code `panic` after a fault of keypool.
    pub async fn close_home(&self) -> Result<(), DeviceError> {
        let client = Arc::clone(&self.client);
        run(async move {
            drop(client.write_owned().await.take());
            Ok::<_, DeviceError>(())
        })
        .await
    }

    /// The device's name: `alice/phone`.
    #[must_use]
    pub fn name(&self) -> PoolId {
        self.name.clone()
    }
}

impl Device {
    /// Runs a call on the library's threads. The device stays open until it has ended, also if the object is dropped.
    async fn call<T, E, F>(
        &self,
        call: impl FnOnce(OpenClient) -> F + Send + 'static,
    ) -> Result<T, DeviceError>
    where
        F: Future<Output = Result<T, E>> + Send,
        T: Send + 'static,
        E: Into<DeviceError>,
    {
        let client = Arc::clone(&self.client);
        run(async move {
            let open = OwnedRwLockReadGuard::try_map(client.read_owned().await, Option::as_ref);
            let open = open.map_err(|_| DeviceError::closed())?;
            call(OpenClient(open)).await.map_err(Into::into)
        })
        .await
    }
}

impl std::fmt::Debug for Device {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Device").field("name", &self.name).finish_non_exhaustive()
    }
}
