//! An apt of our own in the cache: its own sources, lists and packages, so that the machine's apt never sees a foreign
//! suite. The machine's other settings (a proxy, say) still apply.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};
use sha2::{Digest as _, Sha256};

use super::sources::{Archive, Mirrors};
use crate::cache::{Cache, hex};
use crate::process::{self, output, run_logged};

/// A suite of one of the machine's archives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Suite {
    /// `main` or `security`, as [`Mirrors::archive`] takes it.
    pub archive: &'static str,
    /// Name of the suite.
    pub name: &'static str,
}

/// The private apt state for some suites.
pub struct PrivateApt {
    folder: PathBuf,
}

impl PrivateApt {
    /// Fetches the indexes of `suites`.
    ///
    /// # Errors
    /// When an archive is not set up on this machine or its index cannot be fetched and verified.
    pub fn update(cache: &Cache, mirrors: &Mirrors, suites: &[Suite]) -> Result<Self> {
        let _lock = cache.lock("apt")?;
        let folder = cache.path("apt");
        for sub in ["lists/partial", "archives/partial"] {
            fs::create_dir_all(folder.join(sub))
                .with_context(|| format!("cannot create {}", folder.display()))?;
        }
        let lines: Vec<String> = suites
            .iter()
            .map(|suite| Ok(source_line(mirrors.archive(suite.archive)?, suite.name)))
            .collect::<Result<_>>()?;
        write(&folder.join("sources.list"), &lines.concat())?;
        let place = folder.display();
        write(
            &folder.join("apt.conf"),
            &format!(
                "Dir::Etc::sourcelist \"{place}/sources.list\";\nDir::Etc::sourceparts \"/dev/null\";\n\
                 Dir::State::lists \"{place}/lists\";\nDir::Cache \"{place}\";\nDir::Cache::archives \"archives\";\n\
                 Acquire::Languages \"none\";\n\
                 Acquire::IndexTargets::deb::DEP-11::DefaultEnabled \"false\";\nAPT::Sandbox::User \"root\";\nAPT::Architecture \"amd64\";\n\
                 APT::Update::Error-Mode \"any\";\n"
            ),
        )?;
        let apt = Self { folder };
        run_logged(
            apt.command("apt-get").args(["update", "-q"]),
            "fetch Debian's package lists",
            &cache.log("apt-update"),
        )?;
        Ok(apt)
    }

    /// The text of a suite's `Packages` index.
    ///
    /// # Errors
    /// When the suite was not among those of [`PrivateApt::update`] or cannot be read.
    pub fn packages(&self, suite: &str) -> Result<String> {
        let targets = output(
            self.command("apt-get").args([
                "indextargets",
                "--format",
                "$(CODENAME) $(SUITE) $(FILENAME)",
                "Created-By: Packages",
            ]),
            "find the package lists",
        )?;
        let files: Vec<&str> = targets
            .lines()
            .filter_map(|line| {
                let mut words = line.splitn(3, ' ');
                let names = [words.next()?, words.next()?];
                words.next().filter(|_| names.contains(&suite))
            })
            .collect();
        if files.is_empty() {
            bail!("the mirror has no package list for {suite}");
        }
        output(self.command(APT_HELPER).arg("cat-file").args(files), "read the package lists")
    }

    fn command(&self, program: &str) -> Command {
        let mut command = process::command(program);
        command.env("APT_CONFIG", self.folder.join("apt.conf"));
        command
    }
}

const APT_HELPER: &str = "/usr/lib/apt/apt-helper";

/// A line for a `sources.list`, with the key ring named.
pub fn source_line(archive: &Archive, suite: &str) -> String {
    format!("deb [signed-by={}] {} {suite} main\n", archive.keyring, archive.uri)
}

/// How a download went, as far as callers treat it differently.
#[derive(Debug, PartialEq, Eq)]
pub enum Fetched {
    /// The file is there, with the right sum.
    Whole,
    /// The mirror answered that it has no such file.
    Gone,
}

/// Fetches `filename` of `archive` to `target` and checks its SHA-256.
///
/// # Errors
/// When the mirror cannot be reached or what came has another sum.
pub fn fetch(
    cache: &Cache,
    archive: &Archive,
    filename: &str,
    sha256: &str,
    target: &Path,
) -> Result<Fetched> {
    let what = filename.rsplit('/').next().unwrap_or(filename);
    let log = cache.log(&format!("fetch-{what}"));
    let mut command = process::command(APT_HELPER);
    command.args(["-o", "APT::Sandbox::User=root", "download-file"]);
    command.arg(format!("{}/{filename}", archive.uri)).arg(target).arg(format!("SHA256:{sha256}"));
    if let Err(error) = run_logged(&mut command, &format!("fetch {what}"), &log) {
        let text = fs::read_to_string(&log).unwrap_or_default();
        if text.contains("404") {
            return Ok(Fetched::Gone);
        }
        if text.contains("Hash Sum mismatch") {
            bail!("cannot fetch {what}: the mirror's file is not the locked one, its SHA-256 is another");
        }
        return Err(error);
    }
    let found = sum(target)?;
    if found != sha256 {
        bail!("{what} from the mirror is not the locked file: its SHA-256 is {found} and not {sha256}");
    }
    Ok(Fetched::Whole)
}

/// SHA-256 of a file, in hexadecimal.
fn sum(path: &Path) -> Result<String> {
    let mut file = fs::File::open(path).with_context(|| format!("cannot read {}", path.display()))?;
    let mut hash = Sha256::new();
    std::io::copy(&mut file, &mut HashWriter(&mut hash))
        .with_context(|| format!("cannot read {}", path.display()))?;
    Ok(hex(&hash.finalize()))
}

struct HashWriter<'a>(&'a mut Sha256);

impl std::io::Write for HashWriter<'_> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

fn write(path: &Path, text: &str) -> Result<()> {
    fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}

/// The machine's `Acquire` settings (proxies, time-outs) as an apt configuration, for a bootstrap that does not read
/// the machine's own.
///
/// # Errors
/// When `apt-config` fails.
pub fn acquire_settings() -> Result<String> {
    let mut dump = process::command("apt-config");
    dump.args(["dump", "--no-empty", "--format", "%F \"%v\";%n", "Acquire"]);
    let all = output(&mut dump, "read apt's settings")?;
    // The machine may fetch more kinds of index than packages; a bootstrap needs none of them.
    let kept = all.lines().filter(|line| !line.starts_with("Acquire::IndexTargets"));
    Ok(kept.map(|line| format!("{line}\n")).collect())
}
