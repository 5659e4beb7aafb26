//! Clients that ask while something is done to a node: each also before it begins and after it has ended, so that no row
//! passes because its clients came too late on a busy machine.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use anyhow::{Result, ensure};

use crate::patience::eventually;

#[derive(Default)]
pub struct Meanwhile {
    begun: AtomicUsize,
    is_over: AtomicBool,
}

impl Meanwhile {
    /// Calls `ask` until the work is over, and once more, or until it fails; gives the number of calls.
    pub fn repeat(&self, mut ask: impl FnMut() -> Result<()>) -> Result<usize> {
        let mut calls = 0;
        loop {
            let is_last = self.is_over.load(Ordering::Acquire);
            ask().map_err(|error| error.context(format!("after {calls} good requests")))?;
            calls += 1;
            if calls == 1 {
                self.begun.fetch_add(1, Ordering::Relaxed);
            }
            if is_last {
                return Ok(calls);
            }
        }
    }

    /// Does `work` once that many clients have begun, and lets them end then.
    pub fn work<T>(&self, clients: usize, work: impl FnOnce() -> Result<T>) -> Result<T> {
        let has_begun = eventually("every client has asked once", || {
            let begun = self.begun.load(Ordering::Relaxed);
            ensure!(begun == clients, "{begun} of {clients} have");
            Ok(())
        });
        let worked = has_begun.and_then(|()| work());
        self.is_over.store(true, Ordering::Release);
        worked
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use anyhow::bail;

    use super::*;

    #[test]
    fn every_client_asks_before_and_after_work_that_takes_no_time() {
        let meanwhile = Meanwhile::default();
        thread::scope(|scope| {
            let clients = [(); 3].map(|()| scope.spawn(|| meanwhile.repeat(|| Ok(()))));
            meanwhile.work(3, || Ok(())).unwrap();
            for client in clients {
                assert!(client.join().unwrap().unwrap() >= 2);
            }
        });
    }

    #[test]
    fn work_that_fails_lets_clients_end() {
        let meanwhile = Meanwhile::default();
        thread::scope(|scope| {
            let client = scope.spawn(|| meanwhile.repeat(|| Ok(())));
            let worked: Result<()> = meanwhile.work(1, || bail!("no"));
            assert!(worked.is_err());
            assert!(client.join().unwrap().is_ok());
        });
    }
}
