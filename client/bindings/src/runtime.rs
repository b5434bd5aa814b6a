//! The runtime that calls run on: threads of the library's own, so that no event loop of the app is ever blocked.

use std::{
    future::Future,
    io,
    pin::Pin,
    sync::{Mutex, MutexGuard, PoisonError},
    task::{Context, Poll},
    time::Duration,
};

use tokio::{
    runtime::{Builder, Handle, Runtime},
    task::{JoinError, JoinHandle},
};

use crate::DeviceError;

/// How long `shut_down` waits for calls that compute.
const SHUTDOWN_WAIT: Duration = Duration::from_secs(10);

/// The threads that all devices of the process share; made with the first call.
static RUNTIME: Mutex<Option<Runtime>> = Mutex::new(None);

/// Ends the library's threads, and cancels the calls that run. The next call starts them again.
///
/// To be called before the process ends, where the language does not let foreign threads outlive it. The module for
/// Python does so by itself.
#[uniffi::export]
pub fn shut_down() {
    let runtime = lock().take();
    if let Some(runtime) = runtime {
        runtime.shutdown_timeout(SHUTDOWN_WAIT);
    }
}

/// Runs a call on the library's own threads. A panic in it is an error; dropping the returned future cancels the call
/// at its next wait.
pub(crate) async fn run<T, E>(
    call: impl Future<Output = Result<T, E>> + Send + 'static,
) -> Result<T, DeviceError>
where
    T: Send + 'static,
    E: Into<DeviceError>,
{
    let threads = threads().map_err(|error| DeviceError::no_threads(&error))?;
    let task = CallTask(threads.spawn(async move { call.await.map_err(Into::into) }));
    task.await.unwrap_or_else(|error| Err(DeviceError::ended(error)))
}

fn threads() -> io::Result<Handle> {
    let mut runtime = lock();
    if let Some(runtime) = &*runtime {
        return Ok(runtime.handle().clone());
    }
    let started = Builder::new_multi_thread().thread_name("keypool").enable_all().build()?;
    Ok(runtime.insert(started).handle().clone())
}

fn lock() -> MutexGuard<'static, Option<Runtime>> {
    RUNTIME.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A call on the runtime, which ends with this.
struct CallTask<T>(JoinHandle<T>);

impl<T> Future for CallTask<T> {
    type Output = Result<T, JoinError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.0).poll(context)
    }
}

impl<T> Drop for CallTask<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;

    use super::*;

    fn block_on<T>(future: impl Future<Output = T>) -> T {
        Builder::new_current_thread().build().unwrap().block_on(future)
    }

    #[test]
    fn a_panic_is_an_error_of_its_call_only() {
        let planned = async { panic!("planned for a test") };
        let error = block_on(run::<(), DeviceError>(planned)).unwrap_err();
        assert_eq!(error.code(), "panic");
        assert!(error.to_string().contains("planned for a test"), "{error}");
        assert_eq!(block_on(run(async { Ok::<_, DeviceError>(1) })), Ok(1));
    }

    #[test]
    fn a_call_that_is_dropped_is_cancelled_at_its_wait() {
        let (held, released) = channel::<()>();
        block_on(async {
            let never = async move {
                std::future::pending::<()>().await;
                drop(held);
                Ok::<_, DeviceError>(())
            };
            tokio::select! {
                biased;
                answer = run(never) => panic!("{answer:?}"),
                () = async {} => {}
            }
        });
        // The sender is dropped with the call; a minute is a hang.
        let ended = released.recv_timeout(Duration::from_mins(1)).unwrap_err();
        assert_eq!(ended, std::sync::mpsc::RecvTimeoutError::Disconnected);
    }
}
