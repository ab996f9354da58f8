//! The totals of a table, by closed sets of words: what a scrape gives without looking at any pin.
//!
//! Nothing here has a value that a user could choose; that is in `groups`.

use std::collections::{BTreeMap, BTreeSet};

use super::catalogue;
use super::families::{Families, MetricsError};
use super::groups::{Groups, Limits};
use super::process;
use crate::model::{
    Backing, CoverageState, GapCode, Lease, LeaseKind, LeasePolicy, LeaseState, Pin, Subsystem, Table,
};

/// Pins and their bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Total {
    pins: u64,
    bytes: u64,
}

impl Total {
    fn add(&mut self, bytes: u64) {
        self.pins += 1;
        self.bytes = self.bytes.saturating_add(bytes);
    }
}

/// Leases by kind and state, and who waits for them.
#[derive(Clone, Debug, Default)]
struct Leases {
    counts: BTreeMap<(&'static str, &'static str), u64>,
    waiters: u64,
    /// Those who wait for leases on pinned files.
    pinned_waiters: u64,
    /// Since when the first of them waits, nanoseconds since the epoch.
    waiting_since: Option<i64>,
}

/// What a table comes to.
#[derive(Clone, Debug, Default)]
pub struct Overview {
    kinds: BTreeMap<(Subsystem, Backing, CoverageState), Total>,
    unleased: Total,
    /// When the oldest pin was made that is to have a lease and has none, nanoseconds since the epoch.
    unleased_since: Option<i64>,
    unheld: Total,
    deleted: Total,
    leases: Option<Leases>,
    complete: bool,
    gaps: BTreeMap<GapCode, u64>,
    watching_since: Option<i64>,
    groups: Groups,
}

/// By nanoseconds since the epoch, as seconds.
fn age(now: i64, since: Option<i64>) -> f64 {
    since.map_or(0.0, |since| now.saturating_sub(since).max(0) as f64 / 1e9)
}

impl Overview {
    /// Adds up a table.
    pub fn of(table: &Table, policy: LeasePolicy, limits: Limits) -> Self {
        let mut all = Self {
            complete: table.complete(),
            watching_since: table.watching_since,
            groups: Groups::of(table, limits),
            ..Self::default()
        };
        let is_deleted = |pin: &Pin| {
            pin.parts.iter().filter_map(|part| table.file(part.file?)).any(|file| file.deleted == Some(true))
        };
        for gap in &table.gaps {
            *all.gaps.entry(gap.code()).or_default() += 1;
        }
        for pin in &table.pins {
            // A pin on several files counts where its largest part is.
            let backing =
                pin.parts.iter().max_by_key(|part| part.bytes).map_or(Backing::Unknown, |part| part.backing);
            all.kinds.entry((pin.id.subsystem, backing, pin.coverage.state)).or_default().add(pin.bytes);
            if table.is_unleased(pin, policy) {
                all.unleased.add(pin.bytes);
                all.unleased_since = [all.unleased_since, pin.created].into_iter().flatten().min();
            }
            if table.is_unheld(pin) {
                all.unheld.add(pin.bytes);
            }
            if is_deleted(pin) {
                all.deleted.add(pin.bytes);
            }
        }
        all.leases = table.leases.as_ref().map(|leases| Leases::of(leases, table));
        all
    }

    /// The metrics of it. `now` in nanoseconds since the epoch.
    pub fn emit(&self, now: i64, families: &mut Families) {
        let rows = |of: fn(&Total) -> u64| {
            self.kinds.iter().map(move |((subsystem, backing, coverage), total)| {
                ([subsystem.word(), backing.word(), coverage.word()], of(total) as f64)
            })
        };
        families.values(catalogue::PINS, rows(|total| total.pins));
        families.values(catalogue::PINNED_BYTES, rows(|total| total.bytes));
        for (pins, bytes, total) in [
            (catalogue::UNLEASED_PINS, catalogue::UNLEASED_BYTES, self.unleased),
            (catalogue::UNHELD_PINS, catalogue::UNHELD_BYTES, self.unheld),
            (catalogue::DELETED_FILE_PINS, catalogue::DELETED_FILE_BYTES, self.deleted),
        ] {
            families.value(pins, total.pins as f64);
            families.value(bytes, total.bytes as f64);
        }
        families.value(catalogue::UNLEASED_OLDEST_SECONDS, age(now, self.unleased_since));
        families.value(catalogue::COMPLETE, f64::from(u8::from(self.complete)));
        // Those that a pass over the pins can open have a series from the start. `unattributed` takes more than a pass: see
        // pinwatch_kernel_pin_references.
        let is_known = |code: &GapCode| !code.is_of_procfs() && *code != GapCode::Unattributed;
        let codes = GapCode::ALL.iter().filter(|code| is_known(code) || self.gaps.contains_key(code));
        let open = |code: &GapCode| self.gaps.get(code).copied().unwrap_or(0) as f64;
        families.values(catalogue::GAPS, codes.map(|code| ([code.word()], open(code))));
        if let Some(since) = self.watching_since {
            families.value(catalogue::WATCHING_SINCE, since as f64 / 1e9);
        }
        if let Some(leases) = &self.leases {
            leases.emit(now, families);
        }
        self.groups.emit(families);
    }
}

impl Leases {
    fn of(leases: &[Lease], table: &Table) -> Self {
        let mut all = Self::default();
        for kind in LeaseKind::ALL {
            for state in LeaseState::ALL {
                all.counts.insert((kind.word(), state.word()), 0);
            }
        }
        // Who waits does so for all leases of a file.
        let (mut waiters, mut pinned) = (BTreeSet::new(), BTreeSet::new());
        let pinned_files: BTreeSet<_> = match leases.iter().any(|lease| !lease.waiters.is_empty()) {
            true => table.pins.iter().flat_map(|pin| pin.parts.iter().filter_map(|part| part.file)).collect(),
            false => BTreeSet::new(),
        };
        for lease in leases {
            *all.counts.entry((lease.kind.word(), lease.state.word())).or_default() += 1;
            let is_pinned = lease.files().any(|file| pinned_files.contains(&file));
            for waiter in &lease.waiters {
                waiters.insert(waiter.breaker.who.pid);
                if is_pinned {
                    pinned.insert(waiter.breaker.who.pid);
                    all.waiting_since = [all.waiting_since, Some(waiter.since)].into_iter().flatten().min();
                }
            }
        }
        (all.waiters, all.pinned_waiters) = (waiters.len() as u64, pinned.len() as u64);
        all
    }

    fn emit(&self, now: i64, families: &mut Families) {
        let rows = self.counts.iter().map(|((kind, state), count)| ([*kind, *state], *count as f64));
        families.values(catalogue::LEASES, rows);
        families.value(catalogue::LEASE_WAITERS, self.waiters as f64);
        families.value(catalogue::PINNED_LEASE_WAITERS, self.pinned_waiters as f64);
        families.value(catalogue::PINNED_LEASE_OLDEST_WAIT_SECONDS, age(now, self.waiting_since));
    }
}

/// The metrics of a table in the text format, for `pinwatch metrics` without a daemon. `now` in nanoseconds since the Unix
/// epoch.
///
/// # Errors
/// [`MetricsError`], which is a defect.
pub fn text(table: &Table, policy: LeasePolicy, now: i64) -> Result<String, MetricsError> {
    let mut families = Families::default();
    Overview::of(table, policy, Limits::default()).emit(now, &mut families);
    process::build_info(&mut families);
    families.text()
}
