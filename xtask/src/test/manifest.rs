//! The Kubernetes manifest against the schemas of Kubernetes itself, as kubernetes-validate has them.

use std::path::Path;
use std::process::Stdio;

use anyhow::Result;

use super::tally::Tally;
use crate::build::workspace;
use crate::cache::{Cache, progress};
use crate::process::{command, run_logged};

/// What is checked.
const MANIFEST: &str = "deploy/kubernetes.yaml";
/// The validator on PyPI; its version is that of the newest Kubernetes whose schemas it has.
const VALIDATOR: &str = "kubernetes-validate==1.37.0";
/// The oldest and the newest Kubernetes that the manifest is for: appArmorProfile is of 1.30.
const VERSIONS: [&str; 2] = ["1.30", "1.37"];
const MEGABYTES: u64 = 200;
/// What the summary calls it.
pub const NAME: &str = "kubernetes-validate";

/// Checks the manifest; counts as one check.
///
/// # Errors
/// When there is no cache.
pub fn check() -> Result<Tally> {
    println!("== {NAME} {MANIFEST}");
    let has_venv = command("python3")
        .args(["-c", "import venv, ensurepip"])
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success());
    if !has_venv {
        return Ok(skipped(
            "there is no python3 with venv; `apt-get install python3-venv` adds it".to_owned(),
        ));
    }
    let cache = Cache::open()?;
    let folder = match validator(&cache) {
        Ok(folder) => folder,
        Err(error) => return Ok(skipped(format!("it cannot be had: {error:#}").replace('\n', " / "))),
    };
    let mut tally = Tally::default();
    match validate(&cache, &folder) {
        Ok(()) => {
            println!("{NAME}: ok");
            tally.passed += 1;
        }
        Err(error) => {
            println!("{NAME}: FAILED: {error:#}");
            tally.fail(NAME);
        }
    }
    Ok(tally)
}

fn skipped(reason: String) -> Tally {
    println!("{NAME}: skipped: {reason}");
    Tally { skipped: vec![(NAME.to_owned(), reason)], ..Tally::default() }
}

/// The folder of a Python environment with the validator.
fn validator(cache: &Cache) -> Result<std::path::PathBuf> {
    cache.make(&format!("python/{VALIDATOR}"), MEGABYTES, |folder| {
        progress(&format!("getting {VALIDATOR} from PyPI (once)"));
        run_logged(
            command("python3").args(["-m", "venv"]).arg(folder),
            "make a Python environment",
            &cache.log("venv"),
        )?;
        let mut install = command(folder.join("bin/python"));
        install.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", VALIDATOR]);
        run_logged(&mut install, &format!("install {VALIDATOR}"), &cache.log("pip"))
    })
}

fn validate(cache: &Cache, folder: &Path) -> Result<()> {
    for version in VERSIONS {
        // Not its script, which has the path that it was made at.
        let mut validate = command(folder.join("bin/python"));
        validate.args(["-m", "kubernetes_validate", "--strict", "--quiet", "-k", version]);
        validate.arg(workspace().join(MANIFEST));
        run_logged(
            &mut validate,
            &format!("find {MANIFEST} valid for Kubernetes {version}"),
            &cache.log(NAME),
        )?;
    }
    Ok(())
}
