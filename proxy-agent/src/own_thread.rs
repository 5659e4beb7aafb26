//! Threads with an async runtime of their own.
//!
//! In: what a thread is to do. Out: whether it does. The one rule: a runtime is built on its thread. Tokio panics where async code drops
//! one, which it would with the closure of a thread that the kernel refuses.

use std::{future::Future, io, sync::mpsc, thread};

use tokio::runtime;

/// Starts `thread`, which does this work to its end.
///
/// # Errors
/// Where no thread or no runtime is to be had.
pub fn start<F: Future>(
    thread: thread::Builder,
    work: impl FnOnce() -> F + Send + 'static,
) -> io::Result<()> {
    let (begin, begun) = mpsc::sync_channel(1);
    thread.spawn(move || {
        let runtime = runtime::Builder::new_current_thread().enable_all().build();
        let (runtime, outcome) = match runtime {
            Ok(runtime) => (Some(runtime), Ok(())),
            Err(error) => (None, Err(error)),
        };
        let _ = begin.send(outcome);
        if let Some(runtime) = runtime {
            runtime.block_on(work());
        }
    })?;
    begun
        .recv()
        .unwrap_or_else(|_| Err(io::Error::other("the thread ended before it began")))
}

#[cfg(test)]
mod tests {
    use tokio::sync::oneshot;

    use super::*;

    fn in_async_code<T>(test: impl Future<Output = T>) -> T {
        let runtime = runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(test)
    }

    #[test]
    fn a_thread_that_the_kernel_refuses_is_an_error() {
        let no_room = thread::Builder::new().stack_size(1 << 60);
        let started = in_async_code(async { start(no_room, || async {}) });
        assert_eq!(started.unwrap_err().kind(), io::ErrorKind::WouldBlock);
    }

    #[test]
    fn the_work_is_done_on_the_thread() {
        let (done, waits) = oneshot::channel();
        let name = in_async_code(async {
            let thread = thread::Builder::new().name("worker".to_owned());
            start(thread, || async {
                let _ = done.send(thread::current().name().map(str::to_owned));
            })
            .unwrap();
            waits.await.unwrap()
        });
        assert_eq!(name.as_deref(), Some("worker"));
    }
}
