//! A folder with Debian packages of any release unpacked in it, made by mmdebstrap. The machine's own apt is not used
//! for it; its settings (a proxy, say) apply.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

use super::private::acquire_settings;
use crate::cache::remove;
use crate::process::{bootstrap_command, run_logged};

/// Not wanted in any tree.
const EXCLUDED: &[&str] =
    &["/usr/share/doc/*", "/usr/share/man/*", "/usr/share/locale/*", "/usr/share/info/*"];

/// How much is done with the packages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Variant {
    /// A small system: apt's dependencies too, all packages configured.
    System,
    /// The packages' files and those of what they depend on; none of their scripts is run.
    Files,
}

/// What is wanted.
#[derive(Debug)]
pub struct Tree<'a> {
    /// Code name of the Debian release.
    pub release: &'a str,
    /// How much is done with them.
    pub variant: Variant,
    /// The lines of a `sources.list`.
    pub sources: String,
    /// apt settings beyond the machine's.
    pub settings: &'a str,
    /// Names of packages.
    pub packages: &'a [&'a str],
}

impl Tree<'_> {
    /// Makes it in `root`.
    ///
    /// # Errors
    /// When the mirror fails or has no such package: "cannot `what`", the rest is in `log`.
    pub fn make(&self, root: &Path, what: &str, log: &Path) -> Result<()> {
        let (sources, settings) = (beside(root, "list"), beside(root, "conf"));
        let result = write(&sources, &self.sources)
            .and_then(|()| write(&settings, &(acquire_settings()? + self.settings)))
            .and_then(|()| self.bootstrap(root, [&sources, &settings], what, log));
        for file in [&sources, &settings] {
            remove(file)?;
        }
        result
    }

    fn bootstrap(&self, root: &Path, [sources, settings]: [&Path; 2], what: &str, log: &Path) -> Result<()> {
        let mut bootstrap = bootstrap_command();
        bootstrap.arg(match self.variant {
            Variant::System => "--variant=minbase",
            Variant::Files => "--variant=extract",
        });
        bootstrap.arg(format!("--aptopt={}", settings.display()));
        bootstrap.arg("--aptopt=APT::Install-Recommends \"false\"");
        bootstrap.arg(format!("--include={}", self.packages.join(",")));
        bootstrap.args(EXCLUDED.iter().map(|path| format!("--dpkgopt=path-exclude={path}")));
        bootstrap.arg(self.release).arg(root).arg(sources);
        run_logged(&mut bootstrap, what, log)
    }
}

/// A temporary path that begins as `path`, so that it is tidied up with it.
pub fn beside(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{ending}"));
    PathBuf::from(name)
}

fn write(path: &Path, text: &str) -> Result<()> {
    fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}
