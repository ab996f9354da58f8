//! Files: unlinked, renamed, unmounted, in another mount namespace, with names of every kind, and several in one buffer.

use std::ffi::{CString, OsString};
use std::fs::{self, File};
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStringExt;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::Outcome;
use crate::compare;
use crate::factory::Mkpins;
use crate::gaps;
use crate::guest::{Guest, SOON, eventually, shell};

/// T1: open, mmap, register, munmap, close, unlink.
pub fn unlinked(guest: &mut Guest) -> Result<Outcome> {
    let old = !guest.at_least(6, 2);
    let mut cases = vec![
        ("rdma-mr", "/mnt/tmpfs/t1", ""),
        ("io_uring", "/mnt/tmpfs/t1", ""),
        ("xdp", "/mnt/tmpfs/t1", ""),
        ("rdma-mr", "/mnt/ext4/t1", if old { "" } else { "--read-only" }),
        ("rdma-mr", "/mnt/xfs/t1", if old { "" } else { "--read-only" }),
    ];
    if old {
        cases.push(("xdp", "/mnt/ext4/t1", ""));
    }
    for (kind, path, more) in &cases {
        let case = || format!("{kind} on {path}");
        let mut mkpins = Mkpins::start(&format!("{kind} file --path {path} --length 1M {more}"))?;
        ensure!(mkpins.refused().is_none(), "{}: {}", case(), mkpins.made);
        for command in ["munmap", "close", "unlink"] {
            mkpins.tell(command)?;
        }
        let made = mkpins.made.clone();
        guest
            .wait_for(SOON, |pins| {
                compare::exactly(&made, pins)?;
                ensure!(pins[0]["file"]["deleted"] == true, "deleted is {}", pins[0]["file"]["deleted"]);
                Ok(())
            })
            .with_context(case)?;
        let table = shell("lspins")?;
        ensure!(table.contains(&format!("{path} (deleted)")), "{}: the table is {table}", case());
        let by_file = shell(&format!("lspins {path}"))?;
        ensure!(by_file.contains("(deleted)"), "{}: lspins {path} says {by_file}", case());
        // The other tools have lost it: this is what the project is for.
        let lsof = shell(&format!("lsof -p {} 2>/dev/null || true", mkpins.pid()))?;
        ensure!(!lsof.contains("t1"), "{}: lsof knows it: {lsof}", case());
        mkpins.tell("release")?;
        guest.wait_until_empty().with_context(case)?;
    }
    Ok(Outcome::Passed(Some(format!("{} cases", cases.len()))))
}

/// One buffer over several VMAs.
pub fn layouts(guest: &mut Guest) -> Result<Outcome> {
    let (a, b) = ("/mnt/tmpfs/a", "/mnt/tmpfs/b");
    let two_files = format!("file:{a}:0x3000:4,anon:1,file:{b}:0:2");
    let overlaid = format!("file:{a}:0:3,file:{b}:0x5000:2,file:{a}:0x5000:3");
    let private = "private-file:/mnt/ext4/p:0:8:every2".to_owned();
    let private_between = format!("file:{a}:0:2,private-file:/mnt/ext4/p:0x2000:4:every2,file:{b}:0x1000:1");
    let same = "memfd:0:3,same:0x8000:2,same:0x4000:1".to_owned();
    let mut ran = Vec::new();
    let mut refused = Vec::new();
    for kind in ["rdma-mr", "io_uring", "xdp"] {
        for layout in [&two_files, &overlaid, &private, &private_between, &same] {
            let mut mkpins = Mkpins::start(&format!("{kind} --layout {layout}"))?;
            if let Some(errno) = mkpins.refused() {
                // 6.1's io_uring takes no mixture of files, and no file but of shmem.
                ensure!(kind == "io_uring" && !guest.at_least(6, 2), "{kind} {layout}: {}", mkpins.made);
                refused.push(errno.to_owned());
                continue;
            }
            mkpins.tell("munmap")?;
            let made = mkpins.made.clone();
            guest
                .wait_for(SOON, |pins| compare::exactly(&made, pins))
                .with_context(|| format!("{kind} {layout}"))?;
            mkpins.tell("release")?;
            guest.wait_until_empty()?;
            ran.push(layout);
        }
    }
    let note = if refused.is_empty() {
        format!("{} layouts", ran.len())
    } else {
        format!(
            "{} layouts; {} that this kernel's io_uring refuses ({})",
            ran.len(),
            refused.len(),
            refused.join(", ")
        )
    };
    Ok(Outcome::Passed(Some(note)))
}

/// Pins with a file that a shell command makes ready, and checks the one row.
fn with_file(guest: &Guest, mut mkpins: Mkpins, check: impl Fn(&Value) -> Result<()>) -> Result<()> {
    ensure!(mkpins.refused().is_none(), "{}", mkpins.made);
    mkpins.tell("munmap")?;
    mkpins.tell("close")?;
    guest.wait_for(SOON, |pins| {
        ensure!(pins.len() == 1, "{} pins instead of one", pins.len());
        ensure!(pins[0]["exact"] == true, "not exact: {}", pins[0]["doubt"]);
        check(&pins[0])
    })?;
    mkpins.tell("release")?;
    guest.wait_until_empty()
}

fn path_is(pin: &Value, path: &str) -> Result<()> {
    ensure!(pin["file"]["path"] == path, "path {}, not {path:?}", pin["file"]["path"]);
    ensure!(pin["file"]["deleted"] == false, "deleted is {}", pin["file"]["deleted"]);
    Ok(())
}

pub fn mount_namespace(guest: &mut Guest) -> Result<Outcome> {
    shell("mkdir -p /mnt/private")?;
    let script = "mount -t tmpfs tmpfs /mnt/private && exec mkpins io_uring file --path /mnt/private/f";
    let mut command = Command::new("unshare");
    command.args(["-m", "--propagation", "private", "sh", "-c", script]);
    let mkpins = Mkpins::spawn(&mut command, "in a mount namespace")?;
    ensure!(!std::path::Path::new("/mnt/private/f").exists(), "the file is visible outside of its namespace");
    with_file(guest, mkpins, |pin| path_is(pin, "/mnt/private/f"))?;
    Ok(Outcome::Passed(None))
}

pub fn bind_mount(guest: &mut Guest) -> Result<Outcome> {
    shell("mkdir -p /mnt/tmpfs/deep/er /mnt/bound && mount --bind /mnt/tmpfs/deep /mnt/bound")?;
    let mkpins = Mkpins::start("io_uring file --path /mnt/bound/er/f")?;
    let result = with_file(guest, mkpins, |pin| path_is(pin, "/mnt/bound/er/f"));
    shell("umount /mnt/bound")?;
    result.map(|()| Outcome::Passed(None))
}

pub fn deep(guest: &mut Guest) -> Result<Outcome> {
    let folder = format!("/mnt/tmpfs{}", "/directory12".repeat(300));
    fs::create_dir_all(&folder)?;
    let path = format!("{folder}/f");
    let mkpins = Mkpins::start(&format!("io_uring file --path {path}"))?;
    with_file(guest, mkpins, |pin| path_is(pin, &path))?;
    Ok(Outcome::Passed(Some(format!("302 components, {} bytes", path.len()))))
}

pub fn newline(guest: &mut Guest) -> Result<Outcome> {
    let path = "/mnt/tmpfs/a\nb";
    let mut command = Command::new("mkpins");
    command.args(["io_uring", "file", "--path", path]);
    with_file(guest, Mkpins::spawn(&mut command, "with a newline")?, |pin| {
        path_is(pin, path)?;
        let table = shell("lspins")?;
        ensure!(table.contains("/mnt/tmpfs/a\\nb") && !table.contains("a\nb"), "the table is {table:?}");
        Ok(())
    })?;
    Ok(Outcome::Passed(None))
}

pub fn not_utf8(guest: &mut Guest) -> Result<Outcome> {
    let path = b"/mnt/tmpfs/\xff\xfe-x".to_vec();
    let hex: String = path.iter().map(|byte| format!("{byte:02x}")).collect();
    let mut command = Command::new("mkpins");
    command.args(["io_uring", "file", "--path"]).arg(OsString::from_vec(path));
    with_file(guest, Mkpins::spawn(&mut command, "with bytes that are no text")?, |pin| {
        ensure!(
            pin["file"]["path_hex"] == hex.as_str(),
            "path_hex is {}, not {hex}",
            pin["file"]["path_hex"]
        );
        let table = shell("lspins")?;
        ensure!(table.contains("/mnt/tmpfs/\\xff\\xfe-x"), "the table is {table:?}");
        Ok(())
    })?;
    Ok(Outcome::Passed(None))
}

/// A file that has another name now is not deleted.
pub fn renamed(guest: &mut Guest) -> Result<Outcome> {
    for folder in ["/mnt/tmpfs", "/mnt/ext4", "/mnt/xfs"] {
        let more = if folder != "/mnt/tmpfs" && guest.at_least(6, 2) { "--read-only" } else { "" };
        let mut mkpins = Mkpins::pinned(&format!("rdma-mr file --path {folder}/before {more}"))?;
        mkpins.tell("munmap")?;
        mkpins.tell("close")?;
        fs::rename(format!("{folder}/before"), format!("{folder}/after"))?;
        let deleted = |expected: bool| {
            guest.wait_for(SOON, move |pins| {
                ensure!(
                    pins.len() == 1 && pins[0]["file"]["deleted"] == expected,
                    "{folder}: not deleted={expected}: {}",
                    Value::from(pins.to_vec())
                );
                Ok(())
            })
        };
        deleted(false)?;
        fs::remove_file(format!("{folder}/after"))?;
        deleted(true)?;
        mkpins.tell("release")?;
        guest.wait_until_empty()?;
    }
    Ok(Outcome::Passed(None))
}

/// umount succeeds under the pin, and the row is still there.
pub fn unmounted(guest: &mut Guest) -> Result<Outcome> {
    shell("mkdir -p /mnt/gone && mount -t tmpfs tmpfs /mnt/gone")?;
    let mut mkpins = Mkpins::start("rdma-mr file --path /mnt/gone/f")?;
    mkpins.tell("munmap")?;
    mkpins.tell("close")?;
    shell("umount /mnt/gone")?;
    guest.wait_for(SOON, |pins| {
        ensure!(
            pins.len() == 1 && pins[0]["file"]["path"] == "/mnt/gone/f",
            "{}",
            Value::from(pins.to_vec())
        );
        ensure!(
            pins[0]["file"]["deleted"].is_null(),
            "nobody can know whether it is deleted: {}",
            pins[0]["file"]["deleted"]
        );
        Ok(())
    })?;
    mkpins.tell("release")?;
    guest.wait_until_empty()?;
    Ok(Outcome::Passed(None))
}

/// A file system that never answers is mounted where a pinned file is: the table does not wait for it, and says what it does
/// not know of this file; of others it knows all.
pub fn no_answer(guest: &mut Guest) -> Result<Outcome> {
    let below = "/mnt/tmpfs/below";
    fs::create_dir_all(below)?;
    let pinned = Mkpins::pinned(&format!("io_uring file --path {below}/pinned"))?;
    let mode = if guest.at_least(6, 2) { "--read-only" } else { "" };
    let renamed = Mkpins::pinned(&format!("rdma-mr file --path /mnt/ext4/pinned {mode}"))?;
    let states = |table: &Value| -> Result<[Value; 2]> {
        let pins = table["pins"].as_array().context("no pins")?;
        let of = |mkpins: &Mkpins| {
            let pin = pins.iter().find(|pin| pin["creator"]["pid"] == mkpins.pid());
            pin.map(|pin| pin["file"]["deleted"].clone())
                .with_context(|| format!("a pin is missing: {table}"))
        };
        Ok([of(&pinned)?, of(&renamed)?])
    };
    let are = |what: &str, expected: [Value; 2], answers: bool| {
        let table = guest.table_at_once().context(what.to_owned())?;
        let found = states(&table)?;
        ensure!(found == expected, "{what}: {found:?} instead of {expected:?}");
        let silent = gaps::is_open(&table, "file_system_silent");
        ensure!(silent != answers, "{what}: the gaps are {}", table["gaps"]);
        Ok(())
    };
    eventually(SOON, || Ok(are("both are there", [false.into(), false.into()], true)))?;
    let dead = dead_mount(below)?;
    are("one does not answer", [Value::Null, false.into()], false)?;
    // Not to be known without asking: that other file system is still asked.
    fs::rename("/mnt/ext4/pinned", "/mnt/ext4/renamed")?;
    are("the other has another name", [Value::Null, false.into()], false)?;
    fs::remove_file("/mnt/ext4/renamed")?;
    are("the other is deleted", [Value::Null, true.into()], false)?;
    drop(dead);
    shell(&format!("umount {below}"))?;
    eventually(SOON, || Ok(are("unmounted", [false.into(), true.into()], true)))?;
    drop((pinned, renamed));
    guest.wait_until_empty()?;
    fs::remove_dir_all(below)?;
    Ok(Outcome::Passed(None))
}

/// Mounts a file system in user space, whose server never answers and is gone with this file.
fn dead_mount(at: &str) -> Result<File> {
    shell("modprobe fuse")?;
    let server = File::options().read(true).write(true).open("/dev/fuse")?;
    let options = format!("fd={},rootmode=40000,user_id=0,group_id=0", server.as_raw_fd());
    let [name, kind, at, options] =
        ["dead", "fuse", at, &options].map(|text| CString::new(text).unwrap_or_default());
    // SAFETY: strings that live across the call.
    let answer =
        unsafe { libc::mount(name.as_ptr(), at.as_ptr(), kind.as_ptr(), 0, options.as_ptr().cast()) };
    ensure!(answer == 0, "cannot mount: {}", std::io::Error::last_os_error());
    Ok(server)
}
