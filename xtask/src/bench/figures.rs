//! The file of figures, `xtask/bench.toml`: what each measurement gave when it was last written down, what it may be, and
//! which are over that all the same, and why. Pure but for reading and writing the file.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::PathBuf;

use anyhow::{Context as _, Result};
use serde::Deserialize;

use super::measured::Measured;
use crate::build::workspace;

/// By so much a figure may be worse than the one in the file.
const WORSE: f64 = 0.05;

const HEAD: &str = "\
# What pinwatch costs: instructions, and ratios of instructions, measured in guests whose clock counts instructions.
# `cargo xtask bench check` measures again: more than 5 % worse than here (and by more than `noise`), or over `budget`, fails,
# but for what is `accepted` as over, with the reason and who mends it. `bench check --update` writes what it measured.
#
# bench    the command that measures it: cargo xtask bench BENCH
# budget   the most it may be; \"N %\" is of the bare work
# noise    what differs from one build to the next and is no cost
# values   the figure by kernel. hooks, leases: instructions added to one round of the work; us, ns: microseconds and
#          nanoseconds of the guest's clock, thousands of instructions and instructions
";

/// The most that a figure may be.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
#[serde(try_from = "BudgetText")]
pub enum Budget {
    /// So much.
    Most(f64),
    /// So many percent of the bare work.
    Percent(f64),
}

#[derive(Deserialize)]
#[serde(untagged)]
enum BudgetText {
    Number(f64),
    Text(String),
}

impl TryFrom<BudgetText> for Budget {
    type Error = String;

    fn try_from(text: BudgetText) -> Result<Self, String> {
        match text {
            BudgetText::Number(most) => Ok(Self::Most(most)),
            BudgetText::Text(text) => text
                .strip_suffix(" %")
                .and_then(|number| number.parse().ok())
                .map(Self::Percent)
                .ok_or_else(|| format!("a budget is a number or \"N %\", not {text:?}")),
        }
    }
}

impl Budget {
    fn allows(self, measured: &Measured) -> bool {
        match self {
            Self::Most(most) => measured.value <= most,
            Self::Percent(most) => measured.bare.is_some_and(|bare| measured.value <= bare * most / 100.0),
        }
    }

    fn text(self) -> String {
        match self {
            Self::Most(most) => number(most),
            Self::Percent(most) => format!("{most} %"),
        }
    }
}

/// One figure.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Figure {
    /// Which `cargo xtask bench` measures it.
    pub bench: String,
    /// What was measured.
    pub name: String,
    /// The mode, `-` where there is only one.
    pub mode: String,
    /// The most it may be.
    pub budget: Option<Budget>,
    /// What is no cost.
    #[serde(default)]
    pub noise: f64,
    /// Why it may be over its budget for now, and who mends it.
    pub accepted: Option<String>,
    /// The figure by kernel.
    #[serde(default)]
    pub values: BTreeMap<String, f64>,
}

/// All of them.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Figures {
    #[serde(rename = "figure")]
    all: Vec<Figure>,
}

/// What a measurement comes to beside the file.
#[derive(Debug, Clone, PartialEq)]
pub enum Verdict {
    /// Not worse, and within its budget if it has one.
    Good,
    /// Over its budget, which is accepted for this reason.
    Accepted(String),
    /// Over its budget.
    Over,
    /// Worse than the figure in the file.
    Worse,
    /// There is no figure in the file for this kernel.
    Unknown,
    /// It was not measured.
    NotMeasured,
}

impl Verdict {
    fn is_good(&self) -> bool {
        matches!(self, Self::Good | Self::Accepted(_))
    }

    fn text(&self) -> String {
        match self {
            Self::Good => "good".to_owned(),
            Self::Accepted(reason) => format!("over, accepted: {reason}"),
            Self::Over => "OVER its budget".to_owned(),
            Self::Worse => "WORSE than the figure in the file".to_owned(),
            Self::Unknown => "NO FIGURE in the file (--update writes it)".to_owned(),
            Self::NotMeasured => "NOT MEASURED".to_owned(),
        }
    }
}

impl Figure {
    /// `measured` beside this figure of `kernel`.
    pub fn judge(&self, kernel: &str, measured: Option<&Measured>) -> Verdict {
        let Some(measured) = measured else { return Verdict::NotMeasured };
        let within = self.budget.is_none_or(|budget| budget.allows(measured));
        // First what is worse: that a figure may be over is no leave to grow.
        if self.values.get(kernel).is_some_and(|was| measured.value > was + self.slack(*was)) {
            return Verdict::Worse;
        }
        match (within, &self.accepted) {
            (false, None) => Verdict::Over,
            _ if !self.values.contains_key(kernel) => Verdict::Unknown,
            (false, Some(reason)) => Verdict::Accepted(reason.clone()),
            (true, _) => Verdict::Good,
        }
    }

    fn slack(&self, was: f64) -> f64 {
        (was.abs() * WORSE).max(self.noise)
    }

    fn is(&self, measured: &Measured) -> bool {
        (&self.name, &self.mode) == (&measured.name, &measured.mode)
    }
}

fn path() -> PathBuf {
    workspace().join("xtask/bench.toml")
}

impl Figures {
    /// Reads the file.
    ///
    /// # Errors
    /// When it cannot be read or is not as it should be.
    pub fn read() -> Result<Self> {
        let path = path();
        let text = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        toml::from_str(&text).with_context(|| format!("cannot understand {}", path.display()))
    }

    /// Writes it.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn write(&self) -> Result<()> {
        let path = path();
        fs::write(&path, self.text()).with_context(|| format!("cannot write {}", path.display()))
    }

    /// Leaves only the budgets: what is measured is another load.
    pub fn forget_values(&mut self) {
        self.all.iter_mut().for_each(|figure| figure.values.clear());
    }

    /// The kernels that `bench` has figures of.
    pub fn kernels(&self, bench: &str) -> Vec<&str> {
        let of_bench = self.all.iter().filter(|figure| figure.bench == bench);
        let mut kernels: Vec<&str> =
            of_bench.flat_map(|figure| figure.values.keys()).map(String::as_str).collect();
        kernels.sort_unstable();
        kernels.dedup();
        kernels
    }

    /// What `bench` measured on `kernel` beside the figures, as a table, and whether all is good. Without `strict` a kernel
    /// without figures is compared with the budgets only.
    pub fn compare(&self, bench: &str, kernel: &str, measured: &[Measured], strict: bool) -> (String, bool) {
        let mut text = String::new();
        let mut good = true;
        for figure in self.all.iter().filter(|figure| figure.bench == bench) {
            let found = measured.iter().find(|measured| figure.is(measured));
            let verdict = match figure.judge(kernel, found) {
                Verdict::Unknown if !strict => Verdict::Good,
                verdict => verdict,
            };
            good &= verdict.is_good();
            let value = found.map_or_else(|| "-".to_owned(), |found| number(found.value));
            let was = figure.values.get(kernel).map_or_else(|| "-".to_owned(), |was| number(*was));
            let budget = figure.budget.map_or_else(|| "-".to_owned(), Budget::text);
            line(
                &mut text,
                [bench, &figure.name, &figure.mode, kernel, &value, &was, &budget],
                &verdict.text(),
            );
        }
        // For comparison only, such as bpftrace.
        for other in measured.iter().filter(|one| !self.all.iter().any(|f| f.bench == bench && f.is(one))) {
            line(&mut text, [bench, &other.name, &other.mode, kernel, &number(other.value), "-", "-"], "");
        }
        (text, good)
    }

    /// Takes over what `bench` measured on `kernel`.
    pub fn update(&mut self, bench: &str, kernel: &str, measured: &[Measured]) {
        for figure in self.all.iter_mut().filter(|figure| figure.bench == bench) {
            if let Some(found) = measured.iter().find(|measured| figure.is(measured)) {
                // As much as is printed: the rest is noise, and a change of it none to look at.
                let value = number(found.value).parse().unwrap_or(found.value);
                figure.values.insert(kernel.to_owned(), value);
            }
        }
    }

    fn text(&self) -> String {
        let mut text = HEAD.to_owned();
        for figure in &self.all {
            let _ = writeln!(
                text,
                "\n[[figure]]\nbench = {:?}\nname = {:?}\nmode = {:?}",
                figure.bench, figure.name, figure.mode
            );
            let _ = match figure.budget {
                Some(Budget::Most(most)) => writeln!(text, "budget = {}", number(most)),
                Some(Budget::Percent(most)) => writeln!(text, "budget = \"{most} %\""),
                None => Ok(()),
            };
            if figure.noise != 0.0 {
                let _ = writeln!(text, "noise = {}", number(figure.noise));
            }
            if let Some(reason) = &figure.accepted {
                let _ = writeln!(text, "accepted = {reason:?}");
            }
            let values: Vec<String> = figure
                .values
                .iter()
                .map(|(kernel, value)| format!("{kernel:?} = {}", number(*value)))
                .collect();
            let _ = writeln!(text, "values = {{ {} }}", values.join(", "));
        }
        text
    }
}

/// The table's first line.
pub fn head() -> String {
    let mut text = String::new();
    line(&mut text, ["BENCH", "FIGURE", "MODE", "KERNEL", "NOW", "IN FILE", "BUDGET"], "VERDICT");
    text
}

fn line(text: &mut String, cells: [&str; 7], verdict: &str) {
    let [bench, name, mode, kernel, now, was, budget] = cells;
    let line =
        format!("{bench:<8} {name:<20} {mode:<9} {kernel:<6} {now:>11} {was:>11} {budget:>8}  {verdict}");
    let _ = writeln!(text, "{}", line.trim_end());
}

/// Whole where it is large, with four digits where it is a ratio.
fn number(value: f64) -> String {
    if value.abs() >= 100.0 || value.fract() == 0.0 {
        return format!("{value:.0}");
    }
    format!("{value:.4}").trim_end_matches('0').trim_end_matches('.').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn figure(budget: Option<Budget>, was: Option<f64>, accepted: bool) -> Figure {
        Figure {
            bench: "hooks".to_owned(),
            name: "dio-4K".to_owned(),
            mode: "auto".to_owned(),
            budget,
            noise: 10.0,
            accepted: accepted.then(|| "later".to_owned()),
            values: was.map(|was| ("7.3".to_owned(), was)).into_iter().collect(),
        }
    }

    fn measured(value: f64) -> Measured {
        Measured { name: "dio-4K".to_owned(), mode: "auto".to_owned(), value, bare: Some(4000.0) }
    }

    #[test]
    fn five_percent_and_the_noise_are_no_change() {
        let known = figure(None, Some(1000.0), false);
        let judge = |value| known.judge("7.3", Some(&measured(value)));
        assert_eq!(judge(500.0), Verdict::Good);
        assert_eq!(judge(1050.0), Verdict::Good);
        assert_eq!(judge(1051.0), Verdict::Worse);
        // Five percent of nothing is nothing: there the noise counts.
        let nothing = figure(None, Some(-4.0), false);
        assert_eq!(nothing.judge("7.3", Some(&measured(6.0))), Verdict::Good);
        assert_eq!(nothing.judge("7.3", Some(&measured(6.5))), Verdict::Worse);
    }

    #[test]
    fn budgets_hold_whatever_the_file_says() {
        let most = figure(Some(Budget::Most(1000.0)), Some(1001.0), false);
        assert_eq!(most.judge("7.3", Some(&measured(1000.0))), Verdict::Good);
        assert_eq!(most.judge("7.3", Some(&measured(1001.0))), Verdict::Over);
        let percent = figure(Some(Budget::Percent(0.5)), Some(20.0), false);
        assert_eq!(percent.judge("7.3", Some(&measured(20.0))), Verdict::Good);
        assert_eq!(percent.judge("7.3", Some(&measured(20.5))), Verdict::Over);
        let no_bare = Measured { bare: None, ..measured(1.0) };
        assert_eq!(percent.judge("7.3", Some(&no_bare)), Verdict::Over, "a part of nothing is not within");
    }

    #[test]
    fn what_is_accepted_as_over_may_not_grow() {
        let accepted = figure(Some(Budget::Most(1000.0)), Some(2000.0), true);
        assert_eq!(accepted.judge("7.3", Some(&measured(2000.0))), Verdict::Accepted("later".to_owned()));
        assert_eq!(accepted.judge("7.3", Some(&measured(2101.0))), Verdict::Worse);
        assert_eq!(accepted.judge("7.3", Some(&measured(900.0))), Verdict::Good);
    }

    #[test]
    fn what_is_not_measured_or_not_known_is_not_good() {
        let known = figure(None, Some(1.0), true);
        assert_eq!(known.judge("7.3", None), Verdict::NotMeasured);
        assert_eq!(known.judge("6.1", Some(&measured(1.0))), Verdict::Unknown);
        let figures = Figures { all: vec![known] };
        assert!(!figures.compare("hooks", "7.3", &[], true).1);
        assert!(!figures.compare("hooks", "6.1", &[measured(1.0)], true).1);
        assert!(figures.compare("hooks", "6.1", &[measured(1.0)], false).1);
        let (text, good) = figures.compare("hooks", "7.3", &[measured(1.0)], true);
        assert!(good && text.ends_with("good\n"), "{text}");
    }

    #[test]
    fn an_update_changes_what_was_measured_and_nothing_else() {
        let other =
            Figure { mode: "kprobe".to_owned(), ..figure(Some(Budget::Percent(0.5)), Some(7.0), true) };
        let mut figures =
            Figures { all: vec![figure(Some(Budget::Most(0.25)), Some(1.0), false), other.clone()] };
        figures.update("hooks", "7.3", &[measured(0.123_456)]);
        figures.update("list", "7.3", &[measured(99.0)]);
        assert_eq!(figures.all[0].values["7.3"], 0.1235);
        assert_eq!(figures.all[1], other);
        let again: Figures = toml::from_str(&figures.text()).unwrap();
        assert_eq!(again, figures, "{}", figures.text());
    }

    #[test]
    fn the_file_in_the_repository_is_as_it_is_written() {
        let text = fs::read_to_string(path()).unwrap();
        let figures: Figures = toml::from_str(&text).unwrap();
        assert_eq!(figures.text(), text, "`cargo xtask bench check --update` writes it so");
        let kinds = ["hooks", "leases", "list", "holders", "scrape"];
        assert!(figures.all.iter().all(|figure| kinds.contains(&figure.bench.as_str())));
        for figure in figures.all.iter().filter(|figure| figure.accepted.is_some()) {
            assert!(figure.budget.is_some(), "{figure:?} is accepted as over, and has no budget");
        }
    }
}
