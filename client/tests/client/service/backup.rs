//! Older copies put back: of a device's home, or of the server's data.

use std::path::PathBuf;

use keypool_server::{Server, Settings};

use super::super::support::copy;
use super::{Service, settings};

impl Service {
    /// Keeps a copy of a device's home, which must be closed.
    pub(crate) fn back_up_home(&self, name: &str) {
        let kept = self.home_copy(name);
        std::fs::create_dir(&kept).unwrap();
        copy(&self.folder.path().join(name), &kept);
    }

    /// Puts the copy of a device's home in its place.
    pub(crate) fn restore_home(&self, name: &str) {
        let home = self.folder.path().join(name);
        std::fs::remove_dir_all(&home).unwrap();
        std::fs::create_dir(&home).unwrap();
        copy(&self.home_copy(name), &home);
    }

    fn home_copy(&self, name: &str) -> PathBuf {
        self.folder.path().join(format!("older {name}"))
    }

    /// The server stops, a copy of its data is kept, and it starts again.
    pub(crate) async fn back_up(self) -> Self {
        let Self { folder, server, clock, mail, tunnel } = self;
        server.stop().await;
        let (data, kept) = (folder.path().join("server"), folder.path().join("older server"));
        std::fs::create_dir(&kept).unwrap();
        copy(&data, &kept);
        let server = Server::start(settings(&data, &tunnel.authority()), clock.clone()).unwrap();
        tunnel.lead_to(server.address());
        Self { folder, server, clock, mail, tunnel }
    }

    /// The server stops, and goes on from the copy of its data as if there had never been more.
    pub(crate) async fn restore(self) -> Self {
        self.restore_with(false).await
    }

    /// As [`Service::restore`]; the last checkpoint is on another disk, so that the server knows that it was
    /// set back, and its operator says that the rest is lost.
    pub(crate) async fn restore_knowingly(self) -> Self {
        self.restore_with(true).await
    }

    async fn restore_with(self, knowingly: bool) -> Self {
        let Self { folder, server, clock, mail, tunnel } = self;
        server.stop().await;
        let (data, checkpoint) = (folder.path().join("server"), folder.path().join("checkpoint"));
        if knowingly {
            std::fs::rename(data.join("checkpoint"), &checkpoint).unwrap();
        }
        std::fs::remove_dir_all(&data).unwrap();
        std::fs::create_dir(&data).unwrap();
        copy(&folder.path().join("older server"), &data);
        let settings = Settings {
            checkpoint_file: knowingly.then_some(checkpoint),
            accept_restore: knowingly,
            ..settings(&data, &tunnel.authority())
        };
        let server = Server::start(settings, clock.clone()).unwrap();
        tunnel.lead_to(server.address());
        Self { folder, server, clock, mail, tunnel }
    }
}
