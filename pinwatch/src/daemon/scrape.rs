//! What a scrape takes from the daemon: a pass where one is due, and the numbers that the exporter is handed.

use std::rc::Rc;
use std::time::Instant;

use pinwatch_common::Totals;
use tracing::warn;

use super::Watch;
use super::exporter::{Activity, MetricsError, Report};
use crate::kernel::bpf::BpfError;
use crate::model::Subsystem;

/// The maps whose entries are those of pins.
const MAPS: [&str; 3] = ["pins", "extents", "files"];

impl Watch {
    fn totals(&self) -> Result<Vec<(Subsystem, Totals)>, BpfError> {
        Ok(Subsystem::ALL.into_iter().zip(self.programs.totals()?).collect())
    }

    /// Pins made and released so far.
    pub(super) fn activity(&self) -> Activity {
        self.totals().map_or_else(|_| Activity::default(), |totals| Activity::of(&totals))
    }

    /// Whether a pin was made or released, or a lease on one has changed, since the latest pass.
    fn has_changed(&self) -> bool {
        self.follow.is_due() || self.exporter.has_changed(self.activity())
    }

    /// Between two scrapes: makes a pass if one is due.
    pub(super) fn refresh(&mut self) {
        if self.exporter.is_due(Instant::now(), || self.has_changed()) {
            self.pass_for_metrics();
        }
    }

    fn pass_for_metrics(&mut self) {
        if let Err(error) = self.table() {
            warn!(%error, "the metrics of pins are out of date: the pins cannot be read");
        }
    }

    /// Whether everything is hooked that should be, and there was a pass; otherwise why not.
    ///
    /// # Errors
    /// A sentence.
    pub fn ready(&self) -> Result<(), String> {
        let failed = self.failed_hooks();
        if let Some((hook, reason)) = failed.iter().next() {
            return Err(format!("{} hooks are missing, among them {hook}: {reason}", failed.len()));
        }
        if self.exporter.has_passed() { Ok(()) } else { Err("pins have not been read yet".to_owned()) }
    }

    /// All metrics in the text format.
    ///
    /// # Errors
    /// [`MetricsError`], which is a defect.
    pub fn scrape(&mut self) -> Result<Rc<str>, MetricsError> {
        let began = Instant::now();
        if let Some(text) = self.exporter.begin(began) {
            return Ok(text);
        }
        self.drain();
        if self.exporter.needs_pass(self.has_changed()) {
            self.pass_for_metrics();
        }
        let totals = self.totals().ok();
        let changed = self.follow.is_due()
            || totals.as_ref().is_none_or(|totals| self.exporter.has_changed(Activity::of(totals)));
        let counts = self.programs.counts();
        let losses = self.programs.losses_by(&counts).ok();
        let capacity = |map: &'static str| Some((map, self.programs.capacity(&map.to_uppercase())?));
        let report = Report {
            features: self.features(),
            hooks: self.hooks(),
            totals,
            unseen: losses.as_ref().map(|losses| self.healing.unseen(losses.calls)),
            losses,
            reaped: self.healed(),
            runs: counts.runs(),
            capacities: MAPS.into_iter().filter_map(capacity).collect(),
            received: self.follow.received(),
            breaks: self.follow.breaks(),
            refused: self.refusals.counts().collect(),
        };
        let text = self.exporter.render(began, changed, &report)?;
        self.exporter.keep(began, &text);
        Ok(text)
    }
}
