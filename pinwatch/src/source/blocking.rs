//! Calls that may block for ever: to a file system whose server is gone, or that wait for a CPU which runs nothing but one
//! real-time task. They run in a thread of their own, and their caller waits for them with a timeout.

use std::sync::mpsc::{Receiver, RecvTimeoutError, SendError, Sender, TryRecvError, channel};
use std::thread;
use std::time::Duration;

type Call = Box<dyn FnOnce() + Send>;

/// A thread that makes blocking calls; the first one starts it.
pub struct TimedWorker {
    name: &'static str,
    calls: Option<Sender<Call>>,
    /// Disconnected when the call that timed out has returned.
    overdue: Option<Receiver<()>>,
}

impl TimedWorker {
    /// No thread yet. `name` is the thread's, 15 bytes at most (`TASK_COMM_LEN`).
    pub fn new(name: &'static str) -> Self {
        Self { name, calls: None, overdue: None }
    }

    /// Makes a call. `None` if it did not return within `timeout`; and at once for as long as an earlier call has not
    /// returned, so that a run of calls costs that time once.
    pub fn call_timeout<T: Send + 'static>(
        &mut self,
        call: impl FnOnce() -> T + Send + 'static,
        timeout: Duration,
    ) -> Option<T> {
        if self.is_hung() {
            return None;
        }
        let (result, results) = channel();
        let (returned, overdue) = channel::<()>();
        self.send(Box::new(move || {
            let _returned = returned;
            let _ = result.send(call());
        }))?;
        match results.recv_timeout(timeout) {
            Ok(result) => Some(result),
            Err(RecvTimeoutError::Timeout) => {
                self.overdue = Some(overdue);
                None
            }
            // It panicked, and the panic was printed. Its thread is ending: the next call is not to be queued there.
            Err(RecvTimeoutError::Disconnected) => {
                self.calls = None;
                None
            }
        }
    }

    /// Whether a call that timed out has not returned yet.
    pub fn is_hung(&mut self) -> bool {
        let hung =
            self.overdue.as_ref().is_some_and(|overdue| overdue.try_recv() == Err(TryRecvError::Empty));
        if !hung {
            self.overdue = None;
        }
        hung
    }

    /// `None` if the system gives no thread.
    fn send(&mut self, call: Call) -> Option<()> {
        let call = match &self.calls {
            None => call,
            Some(calls) => match calls.send(call) {
                Ok(()) => return Some(()),
                // A call that panicked took the thread with it.
                Err(SendError(call)) => call,
            },
        };
        let (calls, queue) = channel::<Call>();
        let work = move || queue.into_iter().for_each(|call| call());
        thread::Builder::new().name(self.name.to_owned()).spawn(work).ok()?;
        self.calls.insert(calls).send(call).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: Duration = Duration::from_secs(60);

    #[test]
    fn a_call_that_hangs_fails_the_next_ones_at_once_until_it_returns() {
        let (let_go, waits) = channel::<()>();
        let mut worker = TimedWorker::new("test");
        assert_eq!(worker.call_timeout(|| 1, LONG), Some(1));
        let hangs = move || waits.recv().map_or(2, |()| 0);
        assert_eq!(worker.call_timeout(hangs, Duration::from_millis(1)), None);
        assert!(worker.is_hung());
        assert_eq!(worker.call_timeout(|| 3, LONG), None, "at once, or this test takes a minute");
        drop(let_go);
        let fourth = std::iter::repeat_with(|| worker.call_timeout(|| 4, LONG)).find(Option::is_some);
        assert_eq!(fourth, Some(Some(4)));
        assert!(!worker.is_hung());
    }

    #[test]
    fn a_call_that_panics_gives_nothing_and_the_next_one_returns() {
        let mut worker = TimedWorker::new("test");
        assert_eq!([0, 3].map(|number| worker.call_timeout(move || 12 / number, LONG)), [None, Some(4)]);
    }
}
