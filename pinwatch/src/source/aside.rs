//! Questions to the kernel that may never be answered: a file system whose server is gone, a CPU that runs nothing but one
//! real-time task. They are asked in a thread of their own, and waited for no longer than the asker can afford.

use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread;
use std::time::Duration;

/// Who answers, in a thread of its own that is started by the first question.
pub struct Aside<Q, A> {
    name: &'static str,
    answer: fn(Q) -> A,
    thread: Option<Running<Q, A>>,
}

struct Running<Q, A> {
    questions: Sender<Q>,
    answers: Receiver<A>,
    /// A question that was given up on has not been answered yet.
    owing: bool,
}

impl<Q: Send + 'static, A: Send + 'static> Aside<Q, A> {
    /// Nobody yet. `name` is the thread's, 15 bytes at most (`TASK_COMM_LEN`).
    pub fn new(name: &'static str, answer: fn(Q) -> A) -> Self {
        Self { name, answer, thread: None }
    }

    /// Asks. `None` if there was no answer within `patience`; and at once for as long as an earlier question still waits for
    /// its own, so that a run of questions costs that patience once.
    pub fn ask(&mut self, question: Q, patience: Duration) -> Option<A> {
        if self.thread.is_none() {
            self.thread = Running::start(self.name, self.answer);
        }
        let thread = self.thread.as_mut()?;
        if thread.owing {
            // An answer to what nobody wants to know any more.
            thread.owing = thread.answers.try_recv().is_err();
        }
        if thread.owing {
            return None;
        }
        let answer = thread.questions.send(question).map_err(|_| RecvTimeoutError::Disconnected);
        match answer.and_then(|()| thread.answers.recv_timeout(patience)) {
            Ok(answer) => Some(answer),
            Err(RecvTimeoutError::Timeout) => {
                thread.owing = true;
                None
            }
            Err(RecvTimeoutError::Disconnected) => {
                self.thread = None;
                None
            }
        }
    }

    /// Whether a question that was given up on still waits for its answer.
    pub fn stuck(&self) -> bool {
        self.thread.as_ref().is_some_and(|thread| thread.owing)
    }
}

impl<Q: Send + 'static, A: Send + 'static> Running<Q, A> {
    /// `None` if the system gives no thread.
    fn start(name: &str, answer: fn(Q) -> A) -> Option<Self> {
        let (questions, to_answer) = channel();
        let (answered, answers) = channel();
        let work = move || {
            while let Ok(question) = to_answer.recv() {
                if answered.send(answer(question)).is_err() {
                    break;
                }
            }
        };
        thread::Builder::new().name(name.to_owned()).spawn(work).ok()?;
        Some(Self { questions, answers, owing: false })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: Duration = Duration::from_secs(60);

    #[test]
    fn what_is_not_answered_in_time_does_not_answer_the_next_question() {
        // The first question waits until it is let go.
        let (let_go, waits) = channel::<()>();
        let mut aside = Aside::new("test", |question: (u32, Option<Receiver<()>>)| {
            question.1.map(|waits| waits.recv());
            question.0
        });
        assert_eq!(aside.ask((1, None), LONG), Some(1));
        assert_eq!(aside.ask((2, Some(waits)), Duration::from_millis(1)), None);
        assert!(aside.stuck());
        assert_eq!(aside.ask((3, None), LONG), None, "at once, or this test takes a minute");
        let_go.send(()).unwrap();
        let fourth = std::iter::repeat_with(|| aside.ask((4, None), LONG)).find(Option::is_some);
        assert_eq!(fourth, Some(Some(4)));
        assert!(!aside.stuck());
    }

    #[test]
    fn an_answer_that_panics_is_none() {
        let mut aside = Aside::new("test", |question: u32| 12 / question);
        assert_eq!([0, 3].map(|question| aside.ask(question, LONG)), [None, Some(4)]);
    }
}
