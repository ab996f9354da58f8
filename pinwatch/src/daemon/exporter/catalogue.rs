//! Every metric that pinwatch has: name, type, labels, unit and meaning. One table, from which come the `# HELP` and `# TYPE`
//! lines, the number of label values that a row must have, and docs/metrics.md.
//!
//! Nothing is measured here. A metric can be made nowhere else, so none is missing from the documentation. Names follow
//! Prometheus' conventions: base units, `_total` for counters.

use super::labels::Label;

/// What Prometheus calls a metric's type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A value that goes up and down.
    Gauge,
    /// A value that only grows while the daemon runs.
    Counter,
    /// A distribution.
    Histogram,
}

impl Kind {
    /// The word in docs/metrics.md, which is that of the `# TYPE` line.
    pub fn word(self) -> &'static str {
        match self {
            Self::Gauge => "gauge",
            Self::Counter => "counter",
            Self::Histogram => "histogram",
        }
    }
}

/// What there is to know of a metric without measuring anything.
#[derive(Debug)]
pub struct Entry {
    /// The name.
    pub name: &'static str,
    /// The type.
    pub kind: Kind,
    /// What its values are labelled with, in the order of a row.
    pub labels: &'static [Label],
    /// What it is counted in.
    pub unit: &'static str,
    /// The meaning, in whole sentences.
    pub help: &'static str,
}

/// A gauge or counter whose rows have `N` label values each.
#[derive(Clone, Copy, Debug)]
pub struct Number<const N: usize>(&'static Entry);

/// A histogram whose rows have `N` label values each.
#[derive(Clone, Copy, Debug)]
pub struct Histogram<const N: usize>(&'static Entry);

impl<const N: usize> Number<N> {
    /// Its entry in the table.
    pub fn entry(self) -> &'static Entry {
        self.0
    }
}

impl<const N: usize> Histogram<N> {
    /// Its entry in the table.
    pub fn entry(self) -> &'static Entry {
        self.0
    }
}

/// Metrics that belong together.
#[derive(Debug)]
pub struct Section {
    /// The heading in docs/metrics.md.
    pub title: &'static str,
    /// What is to be said of all of them.
    pub note: &'static str,
    /// The metrics.
    pub metrics: &'static [&'static Entry],
}

macro_rules! catalogue {
    ($($title:literal, $note:literal {
        $($id:ident = $kind:ident $name:literal [$($label:ident),*] $unit:literal $help:literal;)*
    })*) => {
        $($(
            #[doc = $help]
            pub const $id: catalogue!(@type $kind { const LABELS: &[Label] = &[$(Label::$label),*]; LABELS.len() }) = {
                const ENTRY: &Entry = &Entry {
                    name: $name,
                    kind: catalogue!(@kind $kind),
                    labels: &[$(Label::$label),*],
                    unit: $unit,
                    help: $help,
                };
                catalogue!(@new $kind)(ENTRY)
            };
        )*)*

        /// All metrics.
        pub const SECTIONS: &[Section] = &[
            $(Section { title: $title, note: $note, metrics: &[$($id.0),*] },)*
        ];
    };
    (@type gauge $n:block) => { Number<$n> };
    (@type counter $n:block) => { Number<$n> };
    (@type histogram $n:block) => { Histogram<$n> };
    (@new gauge) => { Number };
    (@new counter) => { Number };
    (@new histogram) => { Histogram };
    (@kind gauge) => { Kind::Gauge };
    (@kind counter) => { Kind::Counter };
    (@kind histogram) => { Kind::Histogram };
}

catalogue! {
    "Pins", "As of the latest pass over all pins; `pinwatch_totals_age_seconds` tells how old that is." {
        PINS = gauge "pinwatch_pins" [Subsystem, Backing, Coverage] "pins"
            "Number of long-term pins: kernel objects that keep pages in place.";
        PINNED_BYTES = gauge "pinwatch_pinned_bytes" [Subsystem, Backing, Coverage] "bytes"
            "Bytes of memory in long-term pins. Memory that is pinned twice counts twice.";
        UNLEASED_PINS = gauge "pinwatch_unleased_pins" [] "pins"
            "Number of pins that need a lease by --require-lease and have none.";
        UNLEASED_BYTES = gauge "pinwatch_unleased_bytes" [] "bytes"
            "Bytes of the pins that need a lease by --require-lease and have none.";
        UNLEASED_OLDEST_SECONDS = gauge "pinwatch_unleased_oldest_seconds" [] "seconds"
            "Age of the oldest pin that needs a lease and has none, in seconds; 0 without such a pin.";
        UNHELD_PINS = gauge "pinwatch_unheld_pins" [] "pins"
            "Number of pins that no process holds: closing or killing anything does not release them.";
        UNHELD_BYTES = gauge "pinwatch_unheld_bytes" [] "bytes"
            "Bytes of the pins that no process holds.";
        DELETED_FILE_PINS = gauge "pinwatch_deleted_file_pins" [] "pins"
            "Number of pins on files that have been deleted.";
        DELETED_FILE_BYTES = gauge "pinwatch_deleted_file_bytes" [] "bytes"
            "Bytes of the pins on files that have been deleted: this memory is free only when they are released.";
        COMPLETE = gauge "pinwatch_complete" [] "boolean"
            "1 if every pin on the machine is counted, 0 if some may be missing; `lspins -v` prints the reasons.";
        GAPS = gauge "pinwatch_gaps" [Gap] "gaps"
            "Open gaps, by their code in the JSON of lspins: the reasons why the table may not be exact. 0 for those that are not open.";
        WATCHING_SINCE = gauge "pinwatch_watching_since_timestamp_seconds" [] "seconds since the epoch"
            "When pinwatch began to watch pins, in seconds since the Unix epoch.";
    }

    "Leases", "Leases on all files, pinned or not, where pinwatch can see them." {
        LEASES = gauge "pinwatch_leases" [LeaseKind, LeaseState] "leases"
            "Number of leases on files, as of the latest pass.";
        LEASE_WAITERS = gauge "pinwatch_lease_waiters" [] "processes"
            "Number of processes that wait for a lease to be released, as of the latest pass.";
        PINNED_LEASE_WAITERS = gauge "pinwatch_pinned_lease_waiters" [] "processes"
            "Number of processes that wait for a lease on a pinned file to be released, as of the latest pass.";
        PINNED_LEASE_OLDEST_WAIT_SECONDS = gauge "pinwatch_pinned_lease_oldest_wait_seconds" [] "seconds"
            "How long the longest of these waits on pinned files has lasted, in seconds; 0 if nobody waits.";
        LEASE_BREAKS = counter "pinwatch_lease_breaks_total" [Outcome] "waits"
            "Number of waits for a lease that have ended, by outcome.";
        LEASE_WAIT_SECONDS = histogram "pinwatch_lease_wait_seconds" [] "seconds"
            "How long waits for a lease lasted, in seconds.";
    }

    "Activity", "Counted by the BPF programs at each call, and read at each scrape." {
        PINS_MADE = counter "pinwatch_pins_made_total" [Subsystem] "pins"
            "Number of long-term pins made since pinwatch was started.";
        PINS_RELEASED = counter "pinwatch_pins_released_total" [Subsystem] "pins"
            "Number of long-term pins released since pinwatch was started.";
        REGISTRATION_BYTES = histogram "pinwatch_registration_bytes" [Subsystem] "bytes"
            "Sizes of the long-term pins made since pinwatch was started, in bytes.";
        REFUSED = counter "pinwatch_refused_total" [Subsystem, Reason] "pins"
            "Number of pins that the kernel refused, by the likely reason; `lspins --refused` lists the latest ones.";
    }

    "The kernel's own count", "Only on kernels that have these counters in /proc/vmstat." {
        KERNEL_PAGES_PINNED = counter "pinwatch_kernel_pages_pinned_total" [] "page references"
            "References to pages taken by pin_user_pages and its like since boot (nr_foll_pin_acquired). Direct I/O counts too.";
        KERNEL_PAGES_UNPINNED = counter "pinwatch_kernel_pages_unpinned_total" [] "page references"
            "References to pages given back by unpin_user_pages and its like since boot (nr_foll_pin_released).";
        KERNEL_PIN_REFERENCES = gauge "pinwatch_kernel_pin_references" [References] "page references"
            "References to pinned pages that exist now, by what explains them. Direct I/O counts while it lasts: use the minimum over some minutes.";
        MEMORY_BYTES = gauge "pinwatch_memory_bytes" [] "bytes"
            "Memory of the machine in bytes, to compare pinned memory with.";
    }

    "Does pinwatch see everything?", "What is missing, or may be; `pinwatch check` and `lspins -v` explain each." {
        FEATURE = gauge "pinwatch_feature" [Feature, FeatureState] "boolean"
            "1 for the state that each tracing feature is in. \"off\" and \"degraded\" lose information; `pinwatch check` says which.";
        HOOK_ATTACHED = gauge "pinwatch_hook_attached" [Hook, Method] "boolean"
            "1 if a hook is attached to its kernel function, 0 if it could not be attached.";
        UNSEEN_CALLS = gauge "pinwatch_unseen_calls" [] "calls"
            "Hook calls that the kernel skipped and no later pass made up for: up to as many pins may be missing, or listed though released.";
        MISSED_RETURNS = counter "pinwatch_missed_returns_total" [] "calls"
            "Calls whose return was not seen because the kernel had no kretprobe instance left; their pins are missing.";
        REAPED_PINS = counter "pinwatch_reaped_pins_total" [] "pins"
            "Number of pins that were removed from the table because a pass found them released although no hook saw the release.";
        MAP_FULL = counter "pinwatch_map_full_total" [Map] "entries"
            "Number of entries that found no room in a BPF map; start pinwatch with a larger --max-pins.";
        MAP_ENTRIES = gauge "pinwatch_map_entries" [Map] "entries"
            "Number of entries of a BPF map that pins use, as of the latest pass.";
        MAP_CAPACITY = gauge "pinwatch_map_capacity" [Map] "entries"
            "Number of entries that a BPF map has room for.";
        EVENTS_RECEIVED = counter "pinwatch_events_received_total" [] "events"
            "Number of events that the daemon has read from the BPF ring buffer.";
        EVENTS_LOST = counter "pinwatch_events_lost_total" [] "events"
            "Number of events that found no room in the BPF ring buffer. They are missing from `lspins --events`; no pin is lost.";
    }

    "What pinwatch costs", "" {
        PASSES = counter "pinwatch_passes_total" [] "passes"
            "Number of passes: all pins are read and the processes that hold them are looked up.";
        PASS_SECONDS = counter "pinwatch_pass_seconds_total" [] "seconds"
            "Time that all passes took together, in seconds.";
        LAST_PASS_SECONDS = gauge "pinwatch_last_pass_duration_seconds" [] "seconds"
            "Time that the latest pass took, in seconds.";
        TOTALS_AGE_SECONDS = gauge "pinwatch_totals_age_seconds" [] "seconds"
            "Time since the latest pass in seconds if a pin or a lease has changed since; otherwise 0. Deleted files and closed descriptors, which no hook reports, are found by the next pass.";
        SCRAPE_DURATION_SECONDS = gauge "pinwatch_scrape_duration_seconds" [] "seconds"
            "Time that it took to collect these metrics, in seconds.";
        BPF_RUNS = counter "pinwatch_bpf_runs_total" [Program] "runs"
            "Number of runs of a BPF program while the kernel counted them: with --metrics.bpf or kernel.bpf_stats_enabled.";
        BPF_RUN_SECONDS = counter "pinwatch_bpf_run_seconds_total" [Program] "seconds"
            "Time that a BPF program ran while the kernel counted it, in seconds: with --metrics.bpf or kernel.bpf_stats_enabled.";
        HTTP_TURNED_AWAY = counter "pinwatch_http_turned_away_total" [] "connections"
            "Number of HTTP connections that were refused because too many were open.";
        HTTP_UNAUTHORIZED = counter "pinwatch_http_unauthorized_total" [] "requests"
            "Number of HTTP requests without a valid user name and password.";
        WEB_CONFIG_GOOD = gauge "pinwatch_web_config_good" [] "boolean"
            "1 if the web configuration file is in use as it is, 0 if it has errors and the previous version is still in use. Only with --web.config.file.";
        BUILD_INFO = gauge "pinwatch_build_info" [Version] "boolean"
            "The version of pinwatch; always 1.";
        PROCESS_CPU_SECONDS = counter "process_cpu_seconds_total" [] "seconds"
            "Total user and system CPU time spent in seconds.";
        PROCESS_RESIDENT_BYTES = gauge "process_resident_memory_bytes" [] "bytes"
            "Resident memory size in bytes.";
        PROCESS_VIRTUAL_BYTES = gauge "process_virtual_memory_bytes" [] "bytes"
            "Virtual memory size in bytes.";
        PROCESS_START_SECONDS = gauge "process_start_time_seconds" [] "seconds since the epoch"
            "Start time of the process since unix epoch in seconds.";
        PROCESS_OPEN_FDS = gauge "process_open_fds" [] "descriptors"
            "Number of open file descriptors.";
        PROCESS_MAX_FDS = gauge "process_max_fds" [] "descriptors"
            "Maximum number of open file descriptors.";
    }

    "By name", "Only with `--metrics.users`, `--metrics.cgroups` or `--metrics.files`: anybody who may scrape sees the names in them." {
        USER_PINNED_BYTES = gauge "pinwatch_user_pinned_bytes" [User, Uid] "bytes"
            "Bytes of memory in long-term pins, by the user who made them: the largest ones, and all others as \"other\".";
        CGROUP_PINNED_BYTES = gauge "pinwatch_cgroup_pinned_bytes" [Slice, Pod] "bytes"
            "Bytes of memory in long-term pins, by the slice or pod that made them: the largest ones, and all others as \"other\".";
        FILE_PINNED_BYTES = gauge "pinwatch_file_pinned_bytes" [File, Device, Inode] "bytes"
            "Bytes of memory in long-term pins, by file: the largest ones, and all others as \"other\".";
        FOLDED_GROUPS = gauge "pinwatch_folded_groups" [Grouping] "groups"
            "Number of groups (users, slices or pods, files) that are counted as \"other\".";
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn all() -> impl Iterator<Item = &'static Entry> {
        SECTIONS.iter().flat_map(|section| section.metrics).copied()
    }

    #[test]
    fn names_are_unique_and_follow_the_conventions() {
        let mut names = BTreeSet::new();
        for metric in all() {
            assert!(names.insert(metric.name), "{} is there twice", metric.name);
            assert_eq!(metric.kind == Kind::Counter, metric.name.ends_with("_total"), "{}", metric.name);
            let base = metric.name.trim_end_matches("_total");
            assert_eq!(metric.unit == "bytes", base.ends_with("_bytes"), "{}", metric.name);
            assert_eq!(metric.unit.starts_with("seconds"), base.ends_with("_seconds"), "{}", metric.name);
        }
    }

    #[test]
    fn every_help_text_is_sentences_and_names_the_unit() {
        for metric in all() {
            assert!(metric.help.ends_with('.') && !metric.help.contains('\n'), "{}", metric.name);
            let unit = match metric.unit {
                "seconds since the epoch" => "seconds",
                "boolean" => continue,
                unit => unit,
            };
            let word = unit.split(' ').next_back().unwrap_or(unit).trim_end_matches('s');
            assert!(metric.help.to_lowercase().contains(word), "{}: {}", metric.name, metric.help);
        }
    }

    #[test]
    fn no_metric_has_a_label_twice() {
        for metric in all() {
            let names: BTreeSet<&str> = metric.labels.iter().map(|label| label.name()).collect();
            assert_eq!(names.len(), metric.labels.len(), "{}", metric.name);
        }
    }
}
