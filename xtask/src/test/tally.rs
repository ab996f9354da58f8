//! Counting what `scenarios` prints in a guest. Pure: lines in, numbers out.

/// So many lines of a reason are told again in the summary, and so many characters of each: who has no more than the end of
/// the output must find it there.
const REASON_LINES: usize = 3;
const REASON_LENGTH: usize = 500;

/// What became of a part of the test run.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Tally {
    /// Scenarios that passed.
    pub passed: u32,
    /// Names of the failed with the first lines of the reason, in the order in which they failed.
    pub failed: Vec<(String, Vec<String>)>,
    /// Names of the skipped with the reason.
    pub skipped: Vec<(String, String)>,
    /// Names of those that were begun anew with the reason; what became of them in the end is counted as of any other.
    pub again: Vec<(String, String)>,
    /// Seconds of each scenario that ran, passed or failed, as it says itself.
    pub times: Vec<(String, f32)>,
    /// What `scenarios` itself counted at its end: passed, failed, skipped. `None`: it did not reach its end.
    pub closing: Option<(u32, u32, u32)>,
    /// The next lines are those of a failure's reason.
    pub in_reason: bool,
}

impl Tally {
    /// Takes in one line of the output; says whether it reports a failure.
    pub fn line(&mut self, line: &str) -> bool {
        if let Some(closing) = closing(line) {
            self.closing = Some(closing);
            return false;
        }
        let Some((name, verdict)) = line.strip_prefix("scenario ").and_then(|rest| rest.split_once(" ... "))
        else {
            if self.in_reason
                && let (Some(said), Some((_, reason))) = (line.strip_prefix("    "), self.failed.last_mut())
                && reason.len() < REASON_LINES
            {
                reason.push(said.chars().take(REASON_LENGTH).collect());
            }
            return false;
        };
        self.in_reason = false;
        if let Some(reason) = verdict.strip_prefix("skipped") {
            self.skipped.push((name.to_owned(), reason.trim_start_matches(':').trim().to_owned()));
            return false;
        }
        if let Some(reason) = verdict.strip_prefix("once more: ") {
            self.again.push((name.to_owned(), reason.to_owned()));
            return false;
        }
        if let Some(seconds) = seconds(verdict) {
            self.times.push((name.to_owned(), seconds));
        }
        if verdict == "ok" || verdict.starts_with("ok ") {
            self.passed += 1;
            return false;
        }
        self.fail(name);
        self.in_reason = true;
        true
    }

    /// Adds a failure; why is told where it happened.
    pub fn fail(&mut self, name: impl Into<String>) {
        self.failed.push((name.into(), Vec::new()));
    }

    /// Adds a failure for whatever the lines do not show: an end that was not reached, or numbers that do not agree.
    /// `end` says how the run ended if not by itself.
    pub fn close(&mut self, end: Option<&str>, status: Option<i32>) {
        let counted = (self.passed, self.failed.len() as u32, self.skipped.len() as u32);
        let trouble = match (end, self.closing) {
            (Some(end), _) => Some(end.to_owned()),
            (None, None) => Some(match status {
                Some(status) => format!("ended with status {status} before its closing line"),
                None => "ended before its closing line".to_owned(),
            }),
            (None, Some(closing)) if closing != counted => {
                Some(format!("its closing line says {closing:?}, its lines say {counted:?}"))
            }
            (None, Some((0, 0, _))) => Some("no scenario ran".to_owned()),
            (None, Some((_, 0, _))) if status != Some(0) => {
                Some(format!("no scenario failed, yet the status is {}", status.unwrap_or(-1)))
            }
            _ => None,
        };
        if let Some(trouble) = trouble {
            self.fail(format!("the run itself ({trouble})"));
        }
    }
}

fn closing(line: &str) -> Option<(u32, u32, u32)> {
    let mut parts = line.strip_prefix("scenarios: ")?.split(", ");
    let mut number = |what: &str| parts.next()?.strip_suffix(what)?.trim().parse().ok();
    Some((number("passed")?, number("failed")?, number("skipped")?))
}

/// The seconds of `ok (3.2 s)` or `FAILED (3.2 s)`.
fn seconds(verdict: &str) -> Option<f32> {
    verdict.split_once('(')?.1.split_once(" s)")?.0.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(lines: &[&str]) -> Tally {
        let mut tally = Tally::default();
        for line in lines {
            tally.line(line);
        }
        tally
    }

    #[test]
    fn lines_are_counted() {
        let mut tally = read(&[
            "scenario t1 ... ok (3.2 s)",
            "scenario t2 ... ok (3.2 s) [2 MRs]",
            "noise",
            "scenario dax ... skipped: no NVDIMM",
            "scenario t3 ... FAILED (0.1 s)",
            "    scenarios are hard",
            "    and long",
            "scenario t4 ... once more: a CPU slept",
            "scenario t4 ... ok (1 s)",
            "    not of a failure",
            "scenarios: 3 passed, 1 failed, 1 skipped",
        ]);
        tally.close(None, Some(1));
        let reason = ["scenarios are hard", "and long"].map(str::to_owned).to_vec();
        assert_eq!((tally.passed, tally.failed), (3, vec![("t3".to_owned(), reason)]));
        assert_eq!(tally.skipped, [("dax".to_owned(), "no NVDIMM".to_owned())]);
        assert_eq!(
            tally.times,
            [("t1", 3.2), ("t2", 3.2), ("t3", 0.1), ("t4", 1.0)]
                .map(|(name, seconds)| (name.to_owned(), seconds))
        );
        assert_eq!(tally.again, [("t4".to_owned(), "a CPU slept".to_owned())]);
    }

    #[test]
    fn an_end_that_was_not_reached_is_a_failure() {
        let mut tally = read(&["scenario t1 ... ok (3.2 s)"]);
        tally.close(None, Some(0));
        assert_eq!(tally.failed[0].0, "the run itself (ended with status 0 before its closing line)");
        let mut tally = read(&["scenario t1 ... ok (1 s)", "scenarios: 1 passed, 0 failed, 0 skipped"]);
        tally.close(Some("the kernel panicked"), None);
        assert_eq!(tally.failed[0].0, "the run itself (the kernel panicked)");
    }

    #[test]
    fn nothing_run_and_wrong_sums_and_a_bad_status_are_failures() {
        for (lines, status) in [
            (&["scenarios: 0 passed, 0 failed, 0 skipped"][..], 0),
            (&["scenario a ... skipped: x", "scenarios: 0 passed, 0 failed, 1 skipped"], 0),
            (&["scenarios: 1 passed, 0 failed, 0 skipped"], 0),
            (&["scenario a ... ok (1 s)", "scenarios: 1 passed, 0 failed, 0 skipped"], 3),
        ] {
            let mut tally = read(lines);
            tally.close(None, Some(status));
            assert_eq!(tally.failed.len(), 1, "{lines:?}");
        }
    }
}
