//! What the guest's console says: the marks of the start script, a panic, complaints. Pure, over the recorded text.

const PANIC: &str = "Kernel panic - not syncing";
/// RCU waits for a CPU in vain (kernel/rcu/tree_stall.h, tree_exp.h).
const STALLS: [&str; 3] = ["detected stalls on", "detected expedited stalls on", "self-detected stall on"];

/// What the console has said so far.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// The command was started.
    pub started: bool,
    /// Exit status of the command.
    pub exit: Option<i32>,
    /// The kernel panicked.
    pub panic: bool,
    /// A CPU has not done anything for as long as RCU bears it.
    pub stalled: bool,
    /// The start scripts failed, with their reason.
    pub failed: Option<String>,
    /// First line of the first kernel complaint (BUG, oops, warning at boot level).
    pub complaint: Option<String>,
}

/// Reads the recorded console `text`.
pub fn read(text: &str) -> Seen {
    let mut seen = Seen::default();
    for line in text.lines().map(str::trim_end) {
        // Marks are written whole, but a kernel message may stand before them on their line.
        if let Some((_, status)) = line.split_once("@@exit ") {
            seen.exit = status.trim().parse().ok();
        } else if let Some((_, reason)) = line.split_once("@@failed ") {
            seen.failed.get_or_insert_with(|| reason.to_owned());
        } else if line.contains("@@start") {
            seen.started = true;
        } else if line.contains(PANIC) {
            seen.panic = true;
        } else if STALLS.iter().any(|words| line.contains(words)) {
            seen.stalled = true;
        } else if is_complaint(line) {
            seen.complaint.get_or_insert_with(|| line.to_owned());
        }
    }
    seen
}

fn is_complaint(line: &str) -> bool {
    ["BUG: ", "Oops: ", "general protection fault", "INFO: task "].iter().any(|word| line.contains(word))
}

/// What `text` has of a panic: from the first complaint or the panic itself on, `count` lines at most.
pub fn panic(text: &str, count: usize) -> String {
    let lines =
        text.lines().map(str::trim_end).skip_while(|line| !is_complaint(line) && !line.contains(PANIC));
    lines.take(count).collect::<Vec<_>>().join("\n")
}

/// The last `count` lines of `text` that say something, without the start script's marks.
pub fn tail(text: &str, count: usize) -> String {
    let lines: Vec<&str> =
        text.lines().map(str::trim_end).filter(|line| !line.is_empty() && !line.starts_with("@@")).collect();
    match lines.len() {
        0 => "(nothing)".to_owned(),
        length => lines[length.saturating_sub(count)..].join("\n"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cpu_that_stands_still_is_seen() {
        for words in [
            "detected stalls on CPUs/tasks:",
            "detected expedited stalls on CPUs/tasks: {",
            "self-detected stall on CPU",
        ] {
            let seen = read(&format!("[ 22.7] rcu: INFO: rcu_preempt {words}\n"));
            assert!(seen.stalled && !seen.started && seen.complaint.is_none());
        }
    }

    #[test]
    fn reads_marks_with_carriage_returns_and_messages_between() {
        let seen = read("[ 1.0] hello\r\n@@start\r\n[ 3.0] BUG: bad\r\n[ 4.0] x@@exit 7\r\n");
        assert_eq!(seen.exit, Some(7));
        assert!(seen.started && !seen.panic);
        assert_eq!(seen.complaint.as_deref(), Some("[ 3.0] BUG: bad"));
    }

    #[test]
    fn a_panic_and_a_failed_start_are_seen() {
        assert!(read("[ 2.0] Kernel panic - not syncing: Attempted to kill init!").panic);
        assert_eq!(read("@@failed cannot mount x\r\n").failed.as_deref(), Some("cannot mount x"));
        assert_eq!(read(""), Seen::default());
    }

    #[test]
    fn the_tail_leaves_marks_out() {
        assert_eq!(tail("a\r\nb\r\n@@start\r\n\r\nc\r\n", 2), "b\nc");
        assert_eq!(tail("", 5), "(nothing)");
    }

    #[test]
    fn a_panic_is_shown_from_what_led_to_it() {
        let text = "boot\r\nBUG: kernel NULL pointer\r\ntrace\r\nKernel panic - not syncing: x\r\nmore\r\n";
        assert_eq!(panic(text, 3), "BUG: kernel NULL pointer\ntrace\nKernel panic - not syncing: x");
        assert_eq!(panic("a\nKernel panic - not syncing: y\nb", 9), "Kernel panic - not syncing: y\nb");
    }
}
