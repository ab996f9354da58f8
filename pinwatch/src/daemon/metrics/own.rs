//! What the daemon tells of itself, and when a scrape needs a new look at the pins.
//!
//! A look costs as much as there are pins and processes; a scrape must not. So the totals of the latest look are kept. While
//! pins are few a scrape looks anew if any was made or released since; otherwise that is done between two scrapes, for at
//! most 5 % of one CPU, and the scrape says how old its totals are.

use std::rc::Rc;
use std::time::{Duration, Instant};

use pinwatch_common::{SMALLEST_SIZE, Totals};
use tracing::warn;

use super::{Distribution, Families, Limits, MetricsError, Overview, build_info};
use crate::daemon::Watch;
use crate::kernel::bpf::Programs;
use crate::kernel::plan::Method;
use crate::model::{LeasePolicy, Outcome, Subsystem, Table};
use crate::source::clocks::Clocks;
use crate::source::host::vmstat;
use crate::source::trace::Snapshot;

/// A scrape looks anew if the latest look took no longer than this.
const QUICK: Duration = Duration::from_millis(20);
/// Between scrapes pins are looked at anew after so long although nothing is known to have changed: files are deleted, and
/// descriptors closed, without an event.
const OLD: Duration = Duration::from_secs(15);
/// Between scrapes pins are looked at anew for so long after one.
const SCRAPED: Duration = Duration::from_secs(300);
/// A scrape that comes sooner after another than so many times as long as that took gets the same answer: who asks all the time
/// is not to keep the daemon from its work.
const REST: u32 = 4;
/// Registrations of up to 16 GiB are told apart by size.
const BOUNDS: usize = 12;

/// What is kept from one scrape to the next.
#[derive(Default)]
pub struct Kept {
    /// What is asked for by name.
    limits: Limits,
    /// HTTP requests that were turned away because so many were being served.
    pub turned_away: u64,
    /// HTTP requests without the right password.
    pub unauthorized: u64,
    /// Whether the latest web configuration is in use; `None` without one.
    pub configured: Option<bool>,
    /// What the latest look came to; `None` while nobody scrapes: a look for `lspins` alone does not count for others.
    overview: Option<Overview>,
    /// Pins made and released when that was last looked at.
    seen: (u64, u64),
    entries: [(&'static str, usize); 3],
    /// See [`crate::source::trace::Snapshot::references`].
    references: Option<(u64, u64)>,
    looks: u64,
    look_time: Duration,
    scraped: Option<Instant>,
    answer: Option<(Instant, Duration, Rc<str>)>,
}

impl Kept {
    /// Nothing has been looked at yet.
    pub fn new(limits: Limits) -> Self {
        Self { limits, ..Self::default() }
    }

    /// Takes note of a look: the table, what it cost, what was counted before it, and how full the maps were.
    pub fn looked(
        &mut self,
        table: &Table,
        policy: LeasePolicy,
        began: Instant,
        seen: (u64, u64),
        snapshot: &Snapshot,
    ) {
        self.overview = self.is_scraped().then(|| Overview::of(table, policy, self.limits));
        self.answer = None;
        self.seen = seen;
        self.entries = snapshot.entries();
        self.references = Some(snapshot.references());
        self.looks += 1;
        self.look_time += began.elapsed();
    }

    /// Whether anybody was here lately.
    fn is_scraped(&self) -> bool {
        self.scraped.is_some_and(|when| when.elapsed() < SCRAPED)
    }
}

/// How many pins were made and released in all.
fn sums(totals: &[Totals]) -> (u64, u64) {
    totals.iter().fold((0, 0), |sum, of| (sum.0 + of.made, sum.1 + of.released))
}

/// Registrations by size.
fn sizes(of: &Totals) -> Distribution {
    let buckets = of.sizes.iter().take(BOUNDS).enumerate();
    Distribution {
        buckets: buckets
            .map(|(at, many)| ((1_u64 << (SMALLEST_SIZE as usize + 2 * at)) as f64, *many))
            .collect(),
        larger: of.sizes.iter().skip(BOUNDS).sum(),
        sum: of.bytes as f64,
    }
}

fn row(words: &[&str]) -> Vec<String> {
    words.iter().map(|&word| word.to_owned()).collect()
}

impl Watch {
    /// Pins made and released so far.
    pub(in crate::daemon) fn seen(&self) -> (u64, u64) {
        self.programs.totals().map_or((0, 0), |totals| sums(&totals))
    }

    /// Whether a pin was made or released, or a lease on one has changed, since the latest look.
    fn has_changed(&self) -> bool {
        self.follow.is_due() || self.seen() != self.metrics.seen
    }

    /// Between two scrapes: looks anew if something has changed and there is time for it.
    pub(in crate::daemon) fn refresh(&mut self) {
        let is_old = || self.follow.latest_look().is_none_or(|(ended, _)| ended.elapsed() > OLD);
        if self.metrics.is_scraped() && self.follow.has_rested_long() && (is_old() || self.has_changed()) {
            self.look_for_metrics();
        }
    }

    fn look_for_metrics(&mut self) {
        if let Err(error) = self.table() {
            warn!(%error, "pins cannot be looked at for the metrics");
        }
    }

    /// Whether all is hooked that is to be, and pins were looked at once; otherwise why not.
    ///
    /// # Errors
    /// A sentence.
    pub fn ready(&self) -> Result<(), String> {
        let failed = self.failed_hooks();
        if let Some((hook, reason)) = failed.iter().next() {
            return Err(format!("{} hooks are missing, among them {hook}: {reason}", failed.len()));
        }
        if self.metrics.looks == 0 { Err("pins have not been looked at yet".to_owned()) } else { Ok(()) }
    }

    /// All metrics in the text format.
    ///
    /// # Errors
    /// [`MetricsError`], which is a defect.
    pub fn scrape(&mut self) -> Result<Rc<str>, MetricsError> {
        if let Some((when, took, text)) = &self.metrics.answer
            && when.elapsed() < *took * REST
        {
            return Ok(text.clone());
        }
        let began = Instant::now();
        self.metrics.scraped = Some(began);
        self.drain();
        let is_quick = self.follow.latest_look().is_none_or(|(_, took)| took < QUICK);
        if self.metrics.overview.is_none() || is_quick && self.has_changed() {
            self.look_for_metrics();
        }
        let mut families = Families::default();
        build_info(&mut families);
        if let Some(overview) = &self.metrics.overview {
            overview.tell(Clocks::now().realtime, &mut families);
        }
        self.tell_totals(&mut families);
        self.tell_breaks(&mut families);
        self.tell_refused(&mut families);
        self.tell_kernel(&mut families);
        self.tell_hooks(&mut families);
        self.tell_losses(&mut families);
        self.tell_self(&mut families);
        families.gauge(
            "pinwatch_scrape_duration_seconds",
            "How long it took to put these metrics together.",
            began.elapsed().as_secs_f64(),
        );
        let text: Rc<str> = families.text()?.into();
        self.metrics.answer = Some((Instant::now(), began.elapsed(), text.clone()));
        Ok(text)
    }

    fn tell_totals(&self, families: &mut Families) {
        let Ok(totals) = self.programs.totals() else { return };
        let rows = |of: fn(&Totals) -> u64| {
            Subsystem::ALL
                .iter()
                .zip(&totals)
                .map(move |(name, totals)| (row(&[name.word()]), of(totals) as f64))
        };
        families.counters(
            "pinwatch_pins_made_total",
            "Long-term pins made since pinwatch watches.",
            &["subsystem"],
            rows(|totals| totals.made),
        );
        families.counters(
            "pinwatch_pins_released_total",
            "Long-term pins released since pinwatch watches.",
            &["subsystem"],
            rows(|totals| totals.released),
        );
        families.histograms(
            "pinwatch_registration_bytes",
            "Sizes of the long-term pins made since pinwatch watches.",
            &["subsystem"],
            Subsystem::ALL.iter().zip(&totals).map(|(name, totals)| (row(&[name.word()]), sizes(totals))),
        );
        let age = match self.has_changed() {
            true => self.follow.latest_look().map_or(0.0, |(ended, _)| ended.elapsed().as_secs_f64()),
            false => 0.0,
        };
        families.gauge(
            "pinwatch_totals_age_seconds",
            "How old the totals of pins and leases are, if anything has changed since; otherwise 0. Files deleted and descriptors closed are noticed within 15 s or so.",
            age,
        );
    }

    fn tell_breaks(&self, families: &mut Families) {
        let breaks = self.follow.breaks();
        families.counters(
            "pinwatch_lease_breaks_total",
            "Waits for leases to go that have ended, by how.",
            &["outcome"],
            Outcome::ALL.iter().zip(breaks.outcomes).map(|(how, many)| (row(&[how.word()]), many as f64)),
        );
        families.histograms(
            "pinwatch_lease_wait_seconds",
            "How long was waited for leases to go.",
            &[],
            [(Vec::new(), breaks.waits())],
        );
    }

    /// What the kernel refuses.
    fn tell_refused(&self, families: &mut Families) {
        families.counters(
            "pinwatch_refused_total",
            "Pins that the kernel refused, by the reason as far as it can be told; `lspins --refused` names them.",
            &["subsystem", "reason"],
            self.refusals.counts().map(|(subsystem, reason, count)| {
                (vec![subsystem.word().to_owned(), reason.to_owned()], count as f64)
            }),
        );
    }

    /// What the kernel itself counts.
    fn tell_kernel(&self, families: &mut Families) {
        let counts = vmstat::pins();
        if let Some(counts) = counts {
            families.counter(
                "pinwatch_kernel_pages_pinned_total",
                "Pages that the kernel has pinned since boot, by its own count (nr_foll_pin_acquired), direct I/O included.",
                counts.acquired as f64,
            );
            families.counter(
                "pinwatch_kernel_pages_unpinned_total",
                "Pages that the kernel has unpinned since boot, by its own count (nr_foll_pin_released).",
                counts.released as f64,
            );
        }
        if let Some((counts, (attributed, unclaimed))) = counts.zip(self.metrics.references) {
            let all = [
                ("attributed", attributed as f64),
                ("unclaimed", unclaimed as f64),
                ("unattributed", counts.held() as f64 - attributed as f64 - unclaimed as f64),
            ];
            families.gauges(
                "pinwatch_kernel_pin_references",
                "References to pinned pages by the kernel's count: of pins that subsystems have, of those that nobody claims, and what no pin explains. Direct I/O counts while it lasts: take the least over some minutes.",
                &["by"],
                all.map(|(by, value)| (vec![by.to_owned()], value)),
            );
        }
        let memory = rustix::system::sysinfo();
        families.gauge(
            "pinwatch_memory_bytes",
            "The machine's memory: what pins are a part of.",
            memory.totalram as f64 * f64::from(memory.mem_unit),
        );
    }

    fn tell_hooks(&self, families: &mut Families) {
        families.gauges(
            "pinwatch_feature",
            "What can be told of pins here: 1 for the state that each part is in. \"off\" and \"degraded\" are losses; `pinwatch check` explains them.",
            &["feature", "state"],
            self.features().iter().map(|feature| {
                (vec![feature.name.as_str().replace(' ', "_"), feature.state.long_word().to_owned()], 1.0)
            }),
        );
        families.gauges(
            "pinwatch_hook_attached",
            "Whether a hook is on its kernel function: 1, or 0 if it could not be attached.",
            &["hook", "method"],
            self.hooks().into_iter().map(|(hook, method)| {
                let word = match method {
                    Some(Method::Kprobe) => "kprobe",
                    Some(_) => "fentry",
                    None => "none",
                };
                (row(&[hook, word]), f64::from(u8::from(method.is_some())))
            }),
        );
        let runs = self.programs.run_counts();
        // Counted only while somebody has the kernel do so, since it costs time.
        if runs.iter().any(|(_, counts)| counts.runs > 0) {
            families.counters(
                "pinwatch_bpf_runs_total",
                "How often a BPF program of pinwatch ran while the kernel counted (--metrics.bpf or kernel.bpf_stats_enabled).",
                &["program"],
                runs.iter().map(|(name, counts)| (row(&[name]), counts.runs as f64)),
            );
            families.counters(
                "pinwatch_bpf_run_seconds_total",
                "How long a BPF program of pinwatch ran while the kernel counted (--metrics.bpf or kernel.bpf_stats_enabled).",
                &["program"],
                runs.iter().map(|(name, counts)| (row(&[name]), counts.nanoseconds as f64 / 1e9)),
            );
        }
    }

    fn tell_losses(&self, families: &mut Families) {
        if let Ok(losses) = self.programs.losses() {
            families.gauge(
                "pinwatch_unseen_calls",
                "Calls at most that no hook has seen, and that no look has found since: so many pins may be missing, or listed though released.",
                self.healing.unseen(losses.calls) as f64,
            );
            families.counter(
                "pinwatch_missed_returns_total",
                "Registrations that are missing because the kernel had no return probe left.",
                losses.returns as f64,
            );
            families.counters(
                "pinwatch_map_full_total",
                "Times that something found no room in a BPF map.",
                &["map"],
                Programs::FULL.iter().zip(losses.full).map(|(map, many)| (row(&[map]), many as f64)),
            );
            families.counter(
                "pinwatch_events_lost_total",
                "Events that found no room on their way to the daemon; no pin is lost by that.",
                losses.events as f64,
            );
        }
        families.counter(
            "pinwatch_events_received_total",
            "Events that the daemon has got from its BPF programs.",
            self.follow.received() as f64,
        );
        let entries = self.metrics.entries.iter().map(|(map, many)| (row(&[map]), *many as f64));
        families.gauges(
            "pinwatch_map_entries",
            "Entries of a BPF map that pins use, as of the latest look.",
            &["map"],
            entries,
        );
        families.gauges(
            "pinwatch_map_capacity",
            "Entries that a BPF map has room for.",
            &["map"],
            self.metrics.entries.iter().filter_map(|(map, _)| {
                Some((row(&[map]), f64::from(self.programs.capacity(&map.to_uppercase())?)))
            }),
        );
        families.counter(
            "pinwatch_reconcile_differences_total",
            "Pins that were found released though nobody had seen it.",
            self.healed() as f64,
        );
        families.counter(
            "pinwatch_reconciles_total",
            "How often all pins were looked at and compared with their holders.",
            self.metrics.looks as f64,
        );
        families.counter(
            "pinwatch_reconcile_seconds_total",
            "How long that took in all.",
            self.metrics.look_time.as_secs_f64(),
        );
        families.gauge(
            "pinwatch_reconcile_duration_seconds",
            "How long it took the last time.",
            self.follow.latest_look().map_or(0.0, |(_, took)| took.as_secs_f64()),
        );
    }

    fn tell_self(&self, families: &mut Families) {
        families.counter(
            "pinwatch_http_turned_away_total",
            "HTTP connections that were turned away because so many were being served.",
            self.metrics.turned_away as f64,
        );
        families.counter(
            "pinwatch_http_unauthorized_total",
            "HTTP requests without the right user name and password.",
            self.metrics.unauthorized as f64,
        );
        if let Some(good) = self.metrics.configured {
            families.gauge(
                "pinwatch_web_config_good",
                "Whether the web configuration file is in use as it is now: 1, or 0 if it has errors and an older one still is.",
                f64::from(u8::from(good)),
            );
        }
        let Ok(own) = procfs::process::Process::myself() else { return };
        if let Ok(stat) = own.stat() {
            let ticks = procfs::ticks_per_second() as f64;
            families.counter(
                "process_cpu_seconds_total",
                "Total user and system CPU time spent in seconds.",
                (stat.utime + stat.stime) as f64 / ticks,
            );
            families.gauge(
                "process_resident_memory_bytes",
                "Resident memory size in bytes.",
                stat.rss as f64 * procfs::page_size() as f64,
            );
            families.gauge(
                "process_virtual_memory_bytes",
                "Virtual memory size in bytes.",
                stat.vsize as f64,
            );
            let clocks = Clocks::now();
            let started = (clocks.realtime - clocks.boottime) as f64 / 1e9 + stat.starttime as f64 / ticks;
            families.gauge(
                "process_start_time_seconds",
                "Start time of the process since unix epoch in seconds.",
                (started * 100.0).round() / 100.0,
            );
        }
        if let Ok(count) = own.fd_count() {
            families.gauge("process_open_fds", "Number of open file descriptors.", count as f64);
        }
        let most = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
        if let Some(most) = most {
            families.gauge("process_max_fds", "Maximum number of open file descriptors.", most as f64);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_told_apart_up_to_16_gib() {
        let mut totals = Totals { made: 7, bytes: 1 << 40, ..Totals::default() };
        totals.sizes[0] = 4;
        totals.sizes[11] = 1;
        totals.sizes[15] = 2;
        let sizes = sizes(&totals);
        assert_eq!(sizes.buckets.first(), Some(&(4096.0, 4)));
        assert_eq!(sizes.buckets.last(), Some(&((16_u64 << 30) as f64, 1)));
        assert_eq!((sizes.buckets.len(), sizes.larger), (12, 2));
    }
}
