//! Folders with Debian packages of any release unpacked in them, and read-only images of such folders. The machine's own
//! apt is not used for them; its settings (a proxy, say) apply.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};

use super::private::acquire_settings;
use crate::cache::remove;
use crate::process::{command, is_root, run_logged};

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

/// `mmdebstrap`; as root in a mount namespace of its own, so that what it mounts in the tree it builds is gone when it
/// is killed, and that tree can be removed without reaching into the machine's `/proc` or `/sys`.
fn bootstrap_command() -> Command {
    if !is_root() {
        return command("mmdebstrap");
    }
    let mut command = command("unshare");
    command.args(["--mount", "--propagation", "private", "mmdebstrap"]);
    command
}

/// Makes the image `image` of a folder that `fill` fills and that is gone afterwards; `what` is what it holds.
///
/// # Errors
/// When `fill` fails, or it cannot be written.
pub fn squash_filled(
    image: &Path,
    what: &str,
    log: &Path,
    fill: impl FnOnce(&Path) -> Result<()>,
) -> Result<()> {
    let root = beside(image, "root");
    remove(&root)?;
    let made = fill(&root).and_then(|()| squash(&root, image, what, log));
    remove(&root)?;
    made
}

/// Makes the compressed read-only image `image` of `folder`; `what` is what it holds.
///
/// # Errors
/// When it cannot be written.
pub fn squash(folder: &Path, image: &Path, what: &str, log: &Path) -> Result<()> {
    let mut squash = command("mksquashfs");
    squash.arg(folder).arg(image).args(["-noappend", "-comp", "lz4", "-quiet", "-no-progress"]);
    run_logged(&mut squash, &format!("compress {what}"), log)
}

/// Unpacks the files of a package into `root`, but for those that a pattern of `left_out` fits; `what` it is.
///
/// # Errors
/// When the package is damaged or `root` cannot be written.
pub fn unpack(deb: &Path, root: &Path, left_out: &[String], what: &str, log: &Path) -> Result<()> {
    fs::create_dir_all(root).with_context(|| format!("cannot create {}", root.display()))?;
    let mut unpack = command("sh");
    unpack.args([
        "-ec",
        r#"deb=$1 root=$2; shift 2; dpkg-deb --fsys-tarfile "$deb" | tar -x -C "$root" "$@""#,
        "sh",
    ]);
    unpack.arg(deb).arg(root).args(left_out.iter().map(|pattern| format!("--exclude={pattern}")));
    run_logged(&mut unpack, &format!("unpack {what}"), log)
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
