//! Questions to the kernel that may never be answered: to a file system whose server is gone, to a CPU that runs nothing but
//! one real-time task. They are asked in a thread of their own, and waited for no longer than the asker can afford.

use std::sync::mpsc::{Receiver, RecvTimeoutError, SendError, Sender, TryRecvError, channel};
use std::thread;
use std::time::Duration;

type Question = Box<dyn FnOnce() + Send>;

/// A thread to ask in; the first question starts it.
pub struct Aside {
    name: &'static str,
    questions: Option<Sender<Question>>,
    /// Ends when the question that was given up on is done with.
    owed: Option<Receiver<()>>,
}

impl Aside {
    /// No thread yet. `name` is the thread's, 15 bytes at most (`TASK_COMM_LEN`).
    pub fn new(name: &'static str) -> Self {
        Self { name, questions: None, owed: None }
    }

    /// Asks. `None` if there was no answer within `patience`; and at once for as long as an earlier question still waits for
    /// its own, so that a run of questions costs that patience once.
    pub fn ask<T: Send + 'static>(
        &mut self,
        question: impl FnOnce() -> T + Send + 'static,
        patience: Duration,
    ) -> Option<T> {
        if self.is_stuck() {
            return None;
        }
        let (answer, answers) = channel();
        let (ends, owed) = channel::<()>();
        self.send(Box::new(move || {
            let _ends = ends;
            let _ = answer.send(question());
        }))?;
        match answers.recv_timeout(patience) {
            Ok(answer) => Some(answer),
            Err(RecvTimeoutError::Timeout) => {
                self.owed = Some(owed);
                None
            }
            // It panicked, and said so.
            Err(RecvTimeoutError::Disconnected) => None,
        }
    }

    /// Whether a question that was given up on still waits for its answer.
    pub fn is_stuck(&mut self) -> bool {
        let stuck = self.owed.as_ref().is_some_and(|owed| owed.try_recv() == Err(TryRecvError::Empty));
        if !stuck {
            self.owed = None;
        }
        stuck
    }

    /// `None` if the system gives no thread.
    fn send(&mut self, question: Question) -> Option<()> {
        let question = match &self.questions {
            None => question,
            Some(questions) => match questions.send(question) {
                Ok(()) => return Some(()),
                // A question that panicked took the thread with it.
                Err(SendError(question)) => question,
            },
        };
        let (questions, to_answer) = channel::<Question>();
        let work = move || to_answer.into_iter().for_each(|question| question());
        thread::Builder::new().name(self.name.to_owned()).spawn(work).ok()?;
        self.questions.insert(questions).send(question).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: Duration = Duration::from_secs(60);

    #[test]
    fn what_is_not_answered_in_time_does_not_answer_the_next_question() {
        let (let_go, waits) = channel::<()>();
        let mut aside = Aside::new("test");
        assert_eq!(aside.ask(|| 1, LONG), Some(1));
        assert_eq!(aside.ask(move || waits.recv().map_or(2, |()| 0), Duration::from_millis(1)), None);
        assert!(aside.is_stuck());
        assert_eq!(aside.ask(|| 3, LONG), None, "at once, or this test takes a minute");
        drop(let_go);
        let fourth = std::iter::repeat_with(|| aside.ask(|| 4, LONG)).find(Option::is_some);
        assert_eq!(fourth, Some(Some(4)));
        assert!(!aside.is_stuck());
    }

    #[test]
    fn a_question_that_panics_has_no_answer_and_the_next_one_has() {
        let mut aside = Aside::new("test");
        assert_eq!([0, 3].map(|number| aside.ask(move || 12 / number, LONG)), [None, Some(4)]);
    }
}
