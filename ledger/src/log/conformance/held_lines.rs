//! Lines between a server and the nodes of an engine that can be held up: bytes on them come late, and nothing says so.

use std::{
    io::{Read, Write},
    net::{Shutdown, TcpListener, TcpStream},
    sync::{Arc, Condvar, Mutex},
    thread,
};

/// Lines to some ports, all of which are held up at once.
#[derive(Debug)]
pub struct HeldLines {
    hold: Arc<LineHold>,
    /// The ports to connect to instead.
    pub ports: Vec<u16>,
}

#[derive(Debug, Default)]
struct LineHold {
    is_held: Mutex<bool>,
    changed: Condvar,
}

impl LineHold {
    fn set(&self, is_held: bool) {
        *self.is_held.lock().unwrap() = is_held;
        self.changed.notify_all();
    }

    /// Waits until nothing is held up.
    fn pass(&self) {
        let is_held = self.is_held.lock().unwrap();
        drop(self.changed.wait_while(is_held, |is_held| *is_held).unwrap());
    }
}

impl HeldLines {
    /// Lays lines to ports of this machine. They live as long as the test's process.
    ///
    /// # Panics
    ///
    /// Panics if this machine gives no port.
    #[must_use]
    pub fn to(targets: impl IntoIterator<Item = u16>) -> Self {
        let hold = Arc::new(LineHold::default());
        let lay = |target: u16| {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let (port, hold) = (listener.local_addr().unwrap().port(), Arc::clone(&hold));
            thread::spawn(move || {
                for near in listener.incoming().map_while(Result::ok) {
                    if let Ok(far) = TcpStream::connect(("127.0.0.1", target)) {
                        connect(&near, &far, &hold);
                    }
                }
            });
            port
        };
        let ports = targets.into_iter().map(lay).collect();
        Self { hold, ports }
    }

    /// Holds up everything on its way, and everything that is sent later.
    pub fn hold(&self) {
        self.hold.set(true);
    }

    /// Lets everything go on that was held up.
    pub fn release(&self) {
        self.hold.set(false);
    }
}

/// Copies bytes both ways.
fn connect(near: &TcpStream, far: &TcpStream, hold: &Arc<LineHold>) {
    for (from, to) in [(near, far), (far, near)] {
        let (mut from, mut to) = (from.try_clone().unwrap(), to.try_clone().unwrap());
        let hold = Arc::clone(hold);
        thread::spawn(move || {
            let mut bytes = vec![0; 1 << 16];
            while let Ok(len) = from.read(&mut bytes) {
                hold.pass();
                if len == 0 || to.write_all(&bytes[..len]).is_err() {
                    break;
                }
            }
            let _ = to.shutdown(Shutdown::Both);
            let _ = from.shutdown(Shutdown::Both);
        });
    }
}
