//! The closing summary of `cargo xtask test`: what became of each part, how long each took and what in it took longest.
//! Pure: parts in, text out.

use std::fmt::Write as _;
use std::time::Duration;

use super::tally::Tally;

/// So many scenarios of each cell are named with their seconds.
const SLOWEST: usize = 6;

/// How long something took.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Took {
    /// By the clock.
    pub wall: Duration,
    /// CPU time of the programs that were run, if it is known; unlike the clock it hardly depends on what else this machine
    /// does.
    pub cpu: Option<Duration>,
}

/// A part of the test run: a check of this machine, or one cell.
#[derive(Debug, Clone, PartialEq)]
pub struct Part {
    /// What the summary calls it.
    pub name: String,
    /// What became of it.
    pub tally: Tally,
    /// How long it took; `None` if it was not run.
    pub took: Option<Took>,
    /// It was not run now: the result of an earlier run of the same commit, and when that was.
    pub taken_over: Option<String>,
}

impl Part {
    /// A part that has not been run, or whose time is not known yet.
    pub fn new(name: &str, tally: Tally) -> Self {
        Self { name: name.to_owned(), tally, took: None, taken_over: None }
    }
}

/// The table of all parts, the skipped and the failed by name, the times, and the last line with the sums.
pub fn summary(parts: &[Part], whole: Duration) -> String {
    let mut text = format!(
        "\n{:<20} {:>6} {:>6} {:>7} {:>7} {:>7}\n",
        "WHERE", "PASSED", "FAILED", "SKIPPED", "TIME", "CPU"
    );
    for Part { name, tally, took, taken_over } in parts {
        let (failed, skipped) = (tally.failed.len(), tally.skipped.len());
        let time = |time: Option<Duration>| time.map_or_else(|| "-".to_owned(), minutes);
        let (wall, cpu) = (time(took.map(|took| took.wall)), time(took.and_then(|took| took.cpu)));
        let line = format!("{name:<20} {:>6} {failed:>6} {skipped:>7} {wall:>7} {cpu:>7}", tally.passed);
        let _ = match taken_over {
            Some(when) => writeln!(text, "{line}  taken over: {when}"),
            None => writeln!(text, "{line}"),
        };
    }
    for Part { name, tally, .. } in parts {
        for (scenario, reason) in &tally.skipped {
            let _ = writeln!(text, "skipped on {name}: {scenario}: {reason}");
        }
    }
    for Part { name, tally, took, .. } in parts {
        let slowest = slowest(tally, took.unwrap_or_default().wall);
        if !slowest.is_empty() {
            let _ = writeln!(text, "slowest on {name}: {slowest}");
        }
    }
    for Part { name, tally, .. } in parts {
        for (scenario, reason) in &tally.again {
            let _ = writeln!(text, "begun anew on {name}: {scenario}: {reason}");
        }
    }
    for Part { name, tally, .. } in parts {
        for (scenario, reason) in &tally.failed {
            let _ = writeln!(text, "FAILED on {name}: {scenario}");
            for line in reason {
                let _ = writeln!(text, "    {line}");
            }
        }
    }
    let (passed, failed, skipped) = sums(parts);
    let _ = writeln!(text, "{passed} passed, {failed} failed, {skipped} skipped in {}", minutes(whole));
    text
}

/// The scenarios that took longest, and what the rest of the cell's time is: booting, setting up, waiting for the table to be
/// empty.
fn slowest(tally: &Tally, wall: Duration) -> String {
    if tally.times.is_empty() {
        return String::new();
    }
    let mut times = tally.times.clone();
    times.sort_by(|one, other| other.1.total_cmp(&one.1));
    let all: f32 = times.iter().map(|(_, seconds)| seconds).sum();
    let mut words: Vec<String> =
        times.iter().take(SLOWEST).map(|(name, seconds)| format!("{name} {seconds:.0} s")).collect();
    if let Some(rest) = times.get(SLOWEST..).filter(|rest| !rest.is_empty()) {
        let seconds: f32 = rest.iter().map(|(_, seconds)| seconds).sum();
        words.push(format!("{} others {seconds:.0} s", rest.len()));
    }
    let before = wall.as_secs_f32() - all;
    if before > 0.0 {
        words.push(format!("boot and set-up {before:.0} s"));
    }
    words.join(", ")
}

fn minutes(time: Duration) -> String {
    let seconds = time.as_secs_f32().round() as u64;
    format!("{}:{:02}", seconds / 60, seconds % 60)
}

/// Passed, failed and skipped over all parts.
pub fn sums(parts: &[Part]) -> (u32, usize, usize) {
    parts.iter().fold((0, 0, 0), |(passed, failed, skipped), Part { tally, .. }| {
        (passed + tally.passed, failed + tally.failed.len(), skipped + tally.skipped.len())
    })
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
    fn the_last_line_has_the_sums() {
        let mut first = read(&["scenario a ... ok (1 s)", "scenario b ... skipped: why"]);
        first.failed.push(("c".to_owned(), vec!["because".to_owned()]));
        let second = read(&["scenario a ... once more: it slept", "scenario a ... ok (1 s)"]);
        let parts = [Part::new("6.1 auto", first), Part::new("6.1 kprobe", second)];
        let text = summary(&parts, Duration::from_secs(754));
        assert_eq!(text.lines().last(), Some("2 passed, 1 failed, 1 skipped in 12:34"));
        assert!(text.contains("skipped on 6.1 auto: b: why\n"), "{text}");
        assert!(text.contains("begun anew on 6.1 kprobe: a: it slept\nFAILED on 6.1 auto: c\n    because\n"));
    }

    #[test]
    fn each_part_says_how_long_it_took_and_what_took_longest() {
        let lines: Vec<String> =
            (1..=8).map(|number| format!("scenario s{number} ... ok ({number}.0 s)")).collect();
        let tally = read(&lines.iter().map(String::as_str).collect::<Vec<_>>());
        let took = Took { wall: Duration::from_secs(61), cpu: Some(Duration::from_secs(100)) };
        let text = summary(&[Part { took: Some(took), ..Part::new("7.3 auto", tally) }], took.wall);
        assert!(text.contains("7.3 auto                  8      0       0    1:01    1:40\n"), "{text}");
        let expected = "slowest on 7.3 auto: s8 8 s, s7 7 s, s6 6 s, s5 5 s, s4 4 s, s3 3 s, 2 others 3 s, \
                        boot and set-up 25 s\n";
        assert!(text.contains(expected), "{text}");
    }

    #[test]
    fn what_is_taken_over_says_when_it_was_run_and_has_no_time_of_its_own() {
        let part =
            Part { taken_over: Some("run yesterday, seed 7".to_owned()), ..Part::new("6.1 auto", read(&[])) };
        let text = summary(&[part], Duration::ZERO);
        assert!(text.contains("       -       -  taken over: run yesterday, seed 7\n"), "{text}");
    }
}
