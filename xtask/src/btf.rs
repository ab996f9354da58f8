//! `cargo xtask cut-btf`: makes the fixtures of BTF anew that pinwatch's plan is tested by. The kernels' whole BTF is taken out
//! of guests, and cut by the program of xtask/cut-btf to what pinwatch asks for; needed when it asks for more, and for a new
//! kernel. What has changed is read in the diff of pinwatch's tests, as BTF is binary.

use std::ffi::OsString;
use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};

use crate::build::{self, Profile, workspace};
use crate::cache::{Cache, progress, remove};
use crate::kernels::{self, KERNELS};
use crate::process::{command, output};
use crate::setup;
use crate::vm::{Guest, Outcome};

const FIXTURES: &str = "pinwatch/tests/fixtures/btf";
const LIMIT: Duration = Duration::from_secs(300);
/// $@: modules. One that this kernel does not have, or has built in, has no BTF of its own.
const COPY: &str = "cp /sys/kernel/btf/vmlinux /share/ || exit 1
for m; do modprobe $m 2>/dev/null; [ ! -e /sys/kernel/btf/$m ] || cp /sys/kernel/btf/$m /share/ || exit 1; done";

/// Cuts the BTF of these kernels, of all if none is named.
///
/// # Errors
/// When a guest, the build or the cutting fails.
pub fn cut(wanted: &[String]) -> Result<u8> {
    setup::everything()?;
    let kernels: Vec<&str> = match wanted {
        [] => KERNELS.iter().map(|kernel| kernel.key).collect(),
        _ => wanted.iter().map(|key| kernels::find(key).map(|kernel| kernel.key)).collect::<Result<_>>()?,
    };
    let built = build::of_package("cut-btf", Profile::Tests)?;
    let cutter = built.first().context("the package cut-btf has no program")?;
    let modules = output(command(cutter).arg("--modules"), "list the modules that pinwatch hooks")?;
    let modules: Vec<&str> = modules.lines().collect();
    for kernel in kernels {
        let share = Cache::open()?.path("tmp").join(format!("btf-{kernel}.{}", std::process::id()));
        fs::create_dir_all(&share).with_context(|| format!("cannot create {}", share.display()))?;
        let done = copy(kernel, &share, &modules).and_then(|()| cut_all(cutter, kernel, &share, &modules));
        remove(&share)?;
        done?;
    }
    Ok(0)
}

/// Copies the whole BTF out of a guest into `share`.
fn copy(kernel: &str, share: &Path, modules: &[&str]) -> Result<()> {
    progress(&format!("taking the BTF out of Linux {kernel}"));
    let guest = Guest { share: Some(share.to_owned()), build: false, timeout: LIMIT, ..Guest::new(kernel) };
    let words = ["sh", "-c", COPY, "copy"].iter().chain(modules);
    let command: Vec<OsString> = words.map(OsString::from).collect();
    match guest.run(&command, &mut |bytes| eprint!("{}", String::from_utf8_lossy(bytes)))? {
        Outcome::Exited(0) => Ok(()),
        other => bail!("the BTF of Linux {kernel} could not be copied: {other:?}"),
    }
}

fn cut_all(cutter: &Path, kernel: &str, share: &Path, modules: &[&str]) -> Result<()> {
    let folder = workspace().join(FIXTURES).join(kernel);
    fs::create_dir_all(&folder).with_context(|| format!("cannot create {}", folder.display()))?;
    let vmlinux = share.join("vmlinux");
    let mut run = command(cutter);
    output(run.arg(&vmlinux).arg(folder.join("vmlinux.btf")), "cut the kernel's BTF")?;
    for module in modules.iter().filter(|module| share.join(module).exists()) {
        let mut run = command(cutter);
        run.arg("--base").arg(&vmlinux).arg(share.join(module)).arg(folder.join(format!("{module}.btf")));
        output(&mut run, &format!("cut the BTF of {module}"))?;
    }
    Ok(())
}
