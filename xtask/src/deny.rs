//! `cargo xtask deny`: what we depend on, by cargo-deny and `deny.toml`: licences, bans, sources; and advisories where their
//! database can be had. cargo-deny itself is built once, into the cache.

use std::path::PathBuf;
use std::process::Stdio;

use anyhow::{Context as _, Result};

use crate::build::workspace;
use crate::cache::{Cache, progress};
use crate::process::{command, complaint, find_program, output, run_logged};

const VERSION: &str = "0.20.2";
const MEGABYTES: u64 = 3000;
/// What the test run calls it.
pub const NAME: &str = "cargo deny";

/// Checks, with a cargo-deny that is built if there is none; the exit status.
///
/// # Errors
/// When cargo-deny cannot be had or started.
pub fn run() -> Result<u8> {
    let program = match there()? {
        Some(program) => program,
        None => build(&Cache::open()?)?,
    };
    let good = check(&program)?;
    let advisories = advisories(&program)?;
    Ok(u8::from(!(good && advisories)))
}

/// Checks licences, bans and sources if cargo-deny is there already: building it takes minutes, too long for a test run.
///
/// # Errors
/// When it cannot be started.
pub fn if_there() -> Result<Option<bool>> {
    there()?.map(|program| check(&program)).transpose()
}

/// The cargo-deny of the cache, or any that is installed.
fn there() -> Result<Option<PathBuf>> {
    let own = Cache::open()?.path(&place()).join("bin/cargo-deny");
    Ok(if own.exists() { Some(own) } else { find_program("cargo-deny") })
}

fn place() -> String {
    format!("cargo-deny/{VERSION}")
}

fn build(cache: &Cache) -> Result<PathBuf> {
    let folder = cache.make(&place(), MEGABYTES, |folder| {
        progress(&format!("building cargo-deny {VERSION} (once; some minutes)"));
        let target = cache.path("tmp").join(format!("cargo-deny-build.{}", std::process::id()));
        let mut install = command("cargo");
        // Settings of the build that runs this xtask must not leak into that of another crate.
        for name in ["CARGO_ENCODED_RUSTFLAGS", "RUSTFLAGS", "RUSTC_BOOTSTRAP", "CARGO_BUILD_TARGET"] {
            install.env_remove(name);
        }
        // It runs for a second now and then: what counts is the time of its build.
        install
            .current_dir(cache.path("tmp"))
            .env("CARGO_TARGET_DIR", &target)
            .env("CARGO_PROFILE_RELEASE_OPT_LEVEL", "1")
            .env("CARGO_PROFILE_RELEASE_LTO", "off")
            .env("CARGO_PROFILE_RELEASE_CODEGEN_UNITS", "16")
            .env("CARGO_PROFILE_RELEASE_DEBUG", "0")
            .args(["install", "cargo-deny", "--version", VERSION, "--locked", "--root"])
            .arg(folder);
        run_logged(&mut install, "build cargo-deny", &cache.log("cargo-deny"))?;
        crate::cache::remove(&target)
    })?;
    Ok(folder.join("bin/cargo-deny"))
}

/// Licences, bans and sources; what is wrong is printed by cargo-deny.
fn check(program: &PathBuf) -> Result<bool> {
    let status = command(program)
        .current_dir(workspace())
        .args(["--color", "never", "check", "--hide-inclusion-graph", "licenses", "bans", "sources"])
        .stdin(Stdio::null())
        .status()
        .context("cannot start cargo-deny")?;
    Ok(status.success())
}

/// Advisories; without their database they are skipped by name.
fn advisories(program: &PathBuf) -> Result<bool> {
    let mut fetch = command(program);
    fetch.current_dir(workspace()).args(["--color", "never", "fetch", "db"]);
    if let Err(error) = output(&mut fetch, "get the database of advisories") {
        println!("advisories: skipped: {}", complaint(&format!("{error:#}")));
        return Ok(true);
    }
    let status = command(program)
        .current_dir(workspace())
        .args(["--color", "never", "check", "--disable-fetch", "advisories"])
        .stdin(Stdio::null())
        .status()
        .context("cannot start cargo-deny")?;
    Ok(status.success())
}
