//! When a scrape needs a new pass over all pins, and what is kept from one scrape to the next.
//!
//! A pass costs as much as there are pins and processes; a scrape must not. So the totals of the latest pass are kept. While
//! a pass is quick, a scrape makes one if a pin or a lease has changed since. Otherwise passes are made between scrapes, for at
//! most 5 % of one CPU, and `pinwatch_totals_age_seconds` says how old the totals are.

use std::rc::Rc;
use std::time::{Duration, Instant};

use pinwatch_common::Totals;

use super::families::{Families, MetricsError};
use super::groups::Limits;
use super::overview::Overview;
use super::report::{self, References, Report};
use super::{catalogue, process};
use crate::model::{LeasePolicy, Subsystem, Table};
use crate::source::clocks::Clocks;
use crate::source::host::vmstat;

/// A scrape makes a pass only if the latest pass took no longer than this.
const QUICK: Duration = Duration::from_millis(20);
/// Between scrapes a pass is made after this time even if nothing is known to have changed: no hook reports that a file was
/// deleted or a descriptor closed.
const OLD: Duration = Duration::from_secs(15);
/// Between scrapes passes are made for this long after a scrape.
const SCRAPED: Duration = Duration::from_secs(300);
/// A pass that no client waits for is made only after this many times as long as the latest one took: 5 % of one CPU at most.
pub const PASS_REST: u32 = 20;
/// A scrape within this many times the duration of the latest one gets the same reply, so that a scrape loop cannot keep the
/// daemon from its work.
const REPLY_REST: u32 = 4;

/// How many pins were ever made, and how many were released.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Activity {
    /// Made.
    pub made: u64,
    /// Released.
    pub released: u64,
}

impl Activity {
    /// Adds up all subsystems.
    pub fn of(totals: &[(Subsystem, Totals)]) -> Self {
        totals.iter().fold(Self::default(), |sum, (_, of)| Self {
            made: sum.made + of.made,
            released: sum.released + of.released,
        })
    }
}

/// What a pass found, as far as metrics need it.
pub struct Pass<'a> {
    /// The table.
    pub table: &'a Table,
    /// Which pins need a lease.
    pub policy: LeasePolicy,
    /// When the pass began.
    pub began: Instant,
    /// What had been made and released before it began.
    pub activity: Activity,
    /// BPF maps, and how many of their entries pins use.
    pub entries: [(&'static str, usize); 3],
    /// References to pages when the pins were read: later, pins made since would pass for unattributed ones.
    pub references: References,
}

/// What is kept of the latest pass.
struct Latest {
    ended: Instant,
    took: Duration,
    activity: Activity,
    entries: [(&'static str, usize); 3],
    references: References,
}

/// A scrape's reply, for scrapes that follow too soon.
struct Reply {
    ended: Instant,
    took: Duration,
    text: Rc<str>,
}

/// What is kept between scrapes.
#[derive(Default)]
struct ScrapeCache {
    /// The totals of the latest pass; `None` while nobody scrapes: a pass for `lspins` does not add up what nobody reads.
    overview: Option<Overview>,
    latest: Option<Latest>,
    reply: Option<Reply>,
    scraped: Option<Instant>,
}

/// Counters of the HTTP server.
#[derive(Clone, Copy, Debug, Default)]
pub struct HttpCounts {
    /// Connections that were refused because too many were open.
    pub turned_away: u64,
    /// Requests without the right password.
    pub unauthorized: u64,
    /// Whether the latest web configuration is in use; `None` without one.
    pub configured: Option<bool>,
}

/// Makes the replies to scrapes.
#[derive(Default)]
pub struct Exporter {
    limits: Limits,
    cache: ScrapeCache,
    passes: u64,
    pass_time: Duration,
    /// The HTTP server's own counters.
    pub http: HttpCounts,
}

impl Exporter {
    /// Without any pass yet. `limits` is what the administrator asks for by name.
    pub fn new(limits: Limits) -> Self {
        Self { limits, ..Self::default() }
    }

    /// Takes note of a pass that has just ended, whoever it was made for.
    pub fn observe(&mut self, pass: &Pass<'_>) {
        let cache = &mut self.cache;
        let is_scraped = cache.scraped.is_some_and(|when| when.elapsed() < SCRAPED);
        cache.overview = is_scraped.then(|| Overview::of(pass.table, pass.policy, self.limits));
        cache.reply = None;
        let took = pass.began.elapsed();
        cache.latest = Some(Latest {
            ended: Instant::now(),
            took,
            activity: pass.activity,
            entries: pass.entries,
            references: pass.references,
        });
        self.passes += 1;
        self.pass_time += took;
    }

    /// Whether there was a pass at all.
    pub fn has_passed(&self) -> bool {
        self.cache.latest.is_some()
    }

    /// Whether a pin was made or released since the latest pass.
    pub fn has_changed(&self, activity: Activity) -> bool {
        self.cache.latest.as_ref().is_none_or(|latest| latest.activity != activity)
    }

    /// The reply to a scrape that follows another one too soon; otherwise notes that there is a scrape.
    pub fn begin(&mut self, now: Instant) -> Option<Rc<str>> {
        if let Some(reply) = &self.cache.reply
            && now.saturating_duration_since(reply.ended) < reply.took * REPLY_REST
        {
            return Some(reply.text.clone());
        }
        self.cache.scraped = Some(now);
        None
    }

    /// Whether a scrape has to make a pass first, `changed` telling whether a pin or a lease has changed since the latest one.
    pub fn needs_pass(&self, changed: bool) -> bool {
        let is_quick = self.cache.latest.as_ref().is_none_or(|latest| latest.took < QUICK);
        self.cache.overview.is_none() || is_quick && changed
    }

    /// Whether to make a pass between scrapes.
    pub fn is_due(&self, now: Instant, changed: impl FnOnce() -> bool) -> bool {
        if self.cache.scraped.is_none_or(|when| now.saturating_duration_since(when) >= SCRAPED) {
            return false;
        }
        let Some(latest) = &self.cache.latest else { return true };
        let age = now.saturating_duration_since(latest.ended);
        age >= latest.took * PASS_REST && (age > OLD || changed())
    }

    /// Keeps a reply for scrapes that follow too soon, `began` being when its scrape did.
    pub fn keep(&mut self, began: Instant, text: &Rc<str>) {
        let reply = Reply { ended: Instant::now(), took: began.elapsed(), text: text.clone() };
        self.cache.reply = Some(reply);
    }

    /// All metrics in the text format, `began` being when the scrape did, and `changed` as in [`Self::needs_pass`].
    ///
    /// # Errors
    /// [`MetricsError`], which is a defect.
    pub fn render(
        &self,
        began: Instant,
        changed: bool,
        report: &Report<'_>,
    ) -> Result<Rc<str>, MetricsError> {
        let mut families = Families::default();
        process::build_info(&mut families);
        if let Some(overview) = &self.cache.overview {
            overview.emit(Clocks::now().realtime, &mut families);
        }
        let counts = vmstat::pins();
        report::emit_machine(counts, &mut families);
        self.emit_pass(changed, counts, &mut families);
        report.emit(&mut families);
        self.http.emit(&mut families);
        process::emit(&mut families);
        families.value(catalogue::SCRAPE_DURATION_SECONDS, began.elapsed().as_secs_f64());
        Ok(families.text()?.into())
    }

    fn emit_pass(&self, changed: bool, counts: Option<vmstat::Pins>, families: &mut Families) {
        families.value(catalogue::PASSES, self.passes as f64);
        families.value(catalogue::PASS_SECONDS, self.pass_time.as_secs_f64());
        let Some(latest) = &self.cache.latest else { return };
        families.value(catalogue::LAST_PASS_SECONDS, latest.took.as_secs_f64());
        let age = if changed { latest.ended.elapsed().as_secs_f64() } else { 0.0 };
        families.value(catalogue::TOTALS_AGE_SECONDS, age);
        let rows = latest.entries.iter().map(|(map, many)| ([*map], *many as f64));
        families.values(catalogue::MAP_ENTRIES, rows);
        // While the pins are those of the latest pass, the kernel's count of now is compared with them: the minimum over time
        // is without direct I/O.
        let held = if changed { latest.references.held } else { counts.map(vmstat::Pins::held) };
        References { held, ..latest.references }.emit(families);
    }
}

impl HttpCounts {
    fn emit(&self, families: &mut Families) {
        families.value(catalogue::HTTP_TURNED_AWAY, self.turned_away as f64);
        families.value(catalogue::HTTP_UNAUTHORIZED, self.unauthorized as f64);
        if let Some(good) = self.configured {
            families.value(catalogue::WEB_CONFIG_GOOD, f64::from(u8::from(good)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MADE: Activity = Activity { made: 7, released: 2 };

    /// An exporter that was scraped at `now`, after which a pass took so long.
    fn after_pass(now: Instant, took: Duration) -> Exporter {
        let mut exporter = Exporter::default();
        assert!(exporter.begin(now).is_none());
        exporter.observe(&Pass {
            table: &Table::default(),
            policy: LeasePolicy::default(),
            began: now.checked_sub(took).unwrap(),
            activity: MADE,
            entries: [("pins", 5), ("extents", 0), ("files", 0)],
            references: References { attributed: 5, unclaimed: 1, held: Some(8) },
        });
        exporter
    }

    #[test]
    fn a_scrape_makes_a_pass_only_while_that_is_quick_and_something_has_changed() {
        let now = Instant::now();
        assert!(Exporter::default().needs_pass(false));
        let quick = after_pass(now, Duration::ZERO);
        assert!(quick.needs_pass(true) && !quick.needs_pass(false));
        assert!(!after_pass(now, Duration::from_secs(1)).needs_pass(true));
        assert!(!quick.has_changed(MADE) && quick.has_changed(Activity { released: 3, ..MADE }));
    }

    #[test]
    fn between_scrapes_passes_cost_five_percent_at_most_and_end_with_the_scrapes() {
        let now = Instant::now();
        let exporter = after_pass(now, Duration::from_millis(500));
        let due = |after: f64, changed| exporter.is_due(now + Duration::from_secs_f64(after), || changed);
        // The pass took a bit more than half a second.
        assert!(!due(9.9, true) && due(11.5, true));
        assert!(!due(14.9, false) && due(16.5, false));
        assert!(due(299.0, false) && !due(300.0, true));
        assert!(!Exporter::default().is_due(now, || true));
    }

    #[test]
    fn a_scrape_too_soon_gets_the_same_reply() {
        let now = Instant::now();
        let mut exporter = after_pass(now, Duration::ZERO);
        exporter.keep(now.checked_sub(Duration::from_secs(1)).unwrap(), &"text".into());
        assert_eq!(exporter.begin(now + Duration::from_secs(3)).as_deref(), Some("text"));
        assert_eq!(exporter.begin(now + Duration::from_secs(6)), None);
    }

    #[test]
    fn pins_made_since_the_pass_do_not_pass_for_unattributed_ones() {
        let exporter = after_pass(Instant::now(), Duration::ZERO);
        let unattributed = |changed| {
            let mut families = Families::default();
            let counts = vmstat::Pins { acquired: 100, released: 0 };
            exporter.emit_pass(changed, Some(counts), &mut families);
            let text = families.text().unwrap();
            let line = "pinwatch_kernel_pin_references{by=\"unattributed\"} ";
            text.lines().find_map(|other| other.strip_prefix(line)).map(str::to_owned)
        };
        assert_eq!(unattributed(false).as_deref(), Some("94"));
        assert_eq!(unattributed(true).as_deref(), Some("2"));
    }
}
