//! Results of `test --full` by commit, so that it can be finished over several days: one file in the cache for each part that
//! was run. Only what was built from a clean tree is a commit's; a result is taken over for that very commit only.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};

use super::summary::Part;
use super::tally::Tally;
use crate::build::workspace;
use crate::cache::Cache;
use crate::process::{command, output};

/// The commit that the tree is at; `None` if anything in the tree differs from it, or there is no git here.
pub fn clean_commit() -> Option<String> {
    let git = |arguments: &[&str]| -> Result<String> {
        let mut git: Command = command("git");
        output(git.current_dir(workspace()).args(arguments), "ask git for the commit")
    };
    let commit = git(&["rev-parse", "--verify", "HEAD"]).ok()?;
    // Untracked files count: a new module or test changes what is built.
    let changed = git(&["status", "--porcelain", "--untracked-files=normal"]).ok()?;
    changed.trim().is_empty().then(|| commit.trim().to_owned())
}

/// What is stored of a part.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stored {
    /// When it ended, for a person to read.
    pub when: String,
    /// Seed of what was random.
    pub seed: u64,
    /// How many passed.
    pub passed: u32,
    /// Names of the failed.
    pub failed: Vec<String>,
    /// Names of the skipped with the reason.
    pub skipped: Vec<(String, String)>,
}

impl Stored {
    /// What counts when it is taken over.
    fn tally(&self) -> Tally {
        Tally { passed: self.passed, skipped: self.skipped.clone(), ..Tally::default() }
    }
}

/// The results of one commit.
#[derive(Debug)]
pub struct Results {
    folder: PathBuf,
    commit: String,
}

impl Results {
    /// Those of `commit`.
    pub fn of(cache: &Cache, commit: &str) -> Self {
        Self { folder: cache.path("results").join(commit), commit: commit.to_owned() }
    }

    /// The result of the part `name`, if it has passed.
    pub fn passed(&self, name: &str) -> Option<Part> {
        let text = fs::read_to_string(self.path(name)).ok()?;
        let stored: Stored = serde_json::from_str(&text).ok()?;
        // What was only skipped, as its program was missing, may be there now.
        if !stored.failed.is_empty() || stored.passed == 0 {
            return None;
        }
        let taken_over = format!("run {}, seed {}", stored.when, stored.seed);
        Some(Part { taken_over: Some(taken_over), ..Part::new(name, stored.tally()) })
    }

    /// Whether the tree is still that of the commit.
    pub fn still_hold(&self) -> bool {
        clean_commit().as_deref() == Some(&self.commit)
    }

    /// Stores what became of `part`, which must have been made of this commit alone.
    ///
    /// # Errors
    /// When the cache cannot be written.
    pub fn store(&self, part: &Part, seed: u64) -> Result<()> {
        let when = output(command("date").args(["-u", "+%Y-%m-%d %H:%M UTC"]), "ask for the time")?;
        let tally = &part.tally;
        let stored = Stored {
            when: when.trim().to_owned(),
            seed,
            passed: tally.passed,
            failed: tally.failed.iter().map(|(name, _)| name.clone()).collect(),
            skipped: tally.skipped.clone(),
        };
        self.write(&part.name, &stored)
    }

    fn write(&self, name: &str, stored: &Stored) -> Result<()> {
        let path = self.path(name);
        let text = serde_json::to_string_pretty(stored).context("cannot write a result as JSON")?;
        fs::create_dir_all(&self.folder)
            .with_context(|| format!("cannot create {}", self.folder.display()))?;
        // Whole or not at all: a run that is killed meanwhile leaves the old one.
        let unfinished = path.with_extension(std::process::id().to_string());
        fs::write(&unfinished, text + "\n")
            .and_then(|()| fs::rename(&unfinished, &path))
            .with_context(|| format!("cannot write {}", path.display()))
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.join(format!("{}.json", name.replace(' ', "_")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn results(name: &str) -> Results {
        let folder = std::env::temp_dir().join(format!("xtask-results-{name}-{}", std::process::id()));
        Results { folder, commit: "c0ffee".to_owned() }
    }

    fn stored(failed: &[&str]) -> Stored {
        Stored {
            when: "2026-11-28 10:00 UTC".to_owned(),
            seed: 7,
            passed: 80,
            failed: failed.iter().map(|name| (*name).to_owned()).collect(),
            skipped: vec![("udmabuf".to_owned(), "no module".to_owned())],
        }
    }

    #[test]
    fn what_passed_is_taken_over_and_says_when_it_was_run() {
        let results = results("passed");
        results.write("6.1 auto", &stored(&[])).unwrap();
        let part = results.passed("6.1 auto").unwrap();
        assert_eq!((part.tally.passed, part.tally.skipped.len()), (80, 1));
        assert_eq!(part.taken_over.as_deref(), Some("run 2026-11-28 10:00 UTC, seed 7"));
        fs::remove_dir_all(&results.folder).unwrap();
    }

    #[test]
    fn what_failed_or_is_not_there_or_not_whole_is_run_again() {
        let results = results("failed");
        assert!(results.passed("6.1 auto").is_none());
        results.write("6.1 auto", &stored(&["churn"])).unwrap();
        assert!(results.passed("6.1 auto").is_none());
        results.write("cargo deny", &Stored { passed: 0, ..stored(&[]) }).unwrap();
        assert!(results.passed("cargo deny").is_none());
        fs::write(results.path("6.1 kprobe"), "{\"when\": \"today\"").unwrap();
        assert!(results.passed("6.1 kprobe").is_none());
        fs::remove_dir_all(&results.folder).unwrap();
    }

    #[test]
    fn what_is_stored_is_what_is_taken_over() {
        let results = results("stored");
        let part = Part::new("6.1 auto", Tally { passed: 3, ..Tally::default() });
        results.store(&part, 9).unwrap();
        let taken = results.passed("6.1 auto").unwrap();
        assert_eq!((taken.tally.passed, taken.took), (3, None));
        assert!(taken.taken_over.unwrap().ends_with(" UTC, seed 9"));
        let mut failed = part;
        failed.tally.fail("churn");
        results.store(&failed, 10).unwrap();
        assert!(results.passed("6.1 auto").is_none(), "the later result counts");
        fs::remove_dir_all(&results.folder).unwrap();
    }

    #[test]
    fn a_tree_at_another_commit_is_not_taken_for_this_one() {
        // No commit is called so, whatever the state of this tree.
        assert!(!results("other").still_hold());
    }
}
