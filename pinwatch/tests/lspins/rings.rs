//! `lspins` without a daemon, on real io_uring buffers of this very process.

use std::fs::{self, File};
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command};

use crate::support::*;

const PAGE: usize = 4096;

/// A process that keeps a descriptor of a ring, until dropped.
struct Keeper(Child);

impl Keeper {
    fn new(ring: &Ring) -> Self {
        let fd = ring.0.as_raw_fd();
        let mut command = Command::new("sleep");
        // SAFETY: fcntl(2) may be called between fork and exec; it changes the child's descriptor only.
        let command = unsafe {
            command.arg("60").pre_exec(move || {
                libc::fcntl(fd, libc::F_SETFD, 0);
                Ok(())
            })
        };
        Self(command.spawn().unwrap())
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn buffers_on_files_and_on_none() {
    let memory = memfd("pool", 64 * PAGE as u64);
    let dir = tmpfs_directory();
    let path = dir.path().join("ring.dat");
    let shm = File::options().read(true).write(true).create_new(true).open(&path).unwrap();
    shm.set_len(16 * PAGE as u64).unwrap();
    let disk = tempfile::tempfile().unwrap();
    disk.set_len(PAGE as u64).unwrap();

    let on_memfd = Map::shared(&memory, 32 * PAGE, 8 * PAGE as i64);
    let on_shm = Map::shared(&shm, 16 * PAGE, 0);
    let anonymous = Map::anonymous(4 * PAGE);
    let private = Map::private(&disk, PAGE);
    let ring = Ring::new();
    let odd = (on_shm.address + 100, 2 * PAGE);
    ring.register(&[on_memfd.buffer(), on_shm.buffer(), anonymous.buffer(), private.buffer(), odd]);

    let document = own_pins();
    let pin = at(&document, on_memfd.address)[0];
    assert_eq!(
        (pin["backing"].as_str(), pin["mode"].as_str(), pin["origin"].as_str()),
        (Some("shmem"), Some("rw"), Some("proc"))
    );
    assert_eq!(pin["bytes"], 32 * PAGE);
    assert_eq!(pin["pages"], 32);
    assert_eq!(pin["file"]["ino"], inode(&memory));
    assert_eq!(pin["file"]["path"], "/memfd:pool");
    assert_eq!(pin["file"]["deleted"], true);
    assert_eq!(pin["extents"], serde_json::json!([{"offset": 8 * PAGE, "length": 32 * PAGE}]));
    assert_eq!(pin["io_uring"], serde_json::json!({"ring_fd": ring.0.as_raw_fd(), "slot": 0}));
    assert_eq!(pin["creator"]["pid"], std::process::id());
    assert_eq!(pin["holders"][0]["via"][0]["fd"], ring.0.as_raw_fd());
    assert_eq!(pin["exact"], false);

    let pin = at(&document, on_shm.address)[0];
    assert_eq!(pin["file"]["path"], text(&path));
    assert_eq!(pin["file"]["ino"], inode(&shm));
    assert_eq!(pin["file"]["fstype"], "tmpfs");
    assert_eq!(pin["file"]["deleted"], false);
    for address in [anonymous.address, private.address] {
        let pin = at(&document, address)[0];
        assert_eq!((pin["backing"].as_str(), pin["file"].is_null()), (Some("anon"), true));
        assert_eq!(pin["coverage"]["state"], "n/a");
    }
    let pin = at(&document, odd.0)[0];
    assert_eq!(pin["extents"], serde_json::json!([{"offset": 100, "length": 2 * PAGE}]));
    assert_eq!(pin["pages"], 3);

    // By file, by directory, by name prefix; and not by another file.
    let by_file = run(&["--no-daemon", "-n", "-o", "PID,NAME", text(&path)]);
    assert_eq!(stdout(&by_file).lines().count(), 2, "{}", stdout(&by_file));
    assert!(stdout(&by_file).lines().all(|l| l.ends_with(text(&path))));
    let by_dir = run(&["--no-daemon", "-t", "--dir", text(dir.path())]);
    assert_eq!(stdout(&by_dir), format!("{}\n", std::process::id()));
    let mount = run(&["--no-daemon", "-j", "--mount", "/dev/shm", "--dir", text(dir.path())]);
    assert_eq!(stdout(&mount).lines().count(), 2);
    assert_eq!(code(&run(&["--no-daemon", "/etc/passwd"])), 1);

    // The file goes, the pin stays and is found by the name the file had.
    drop(shm);
    fs::remove_file(&path).unwrap();
    let deleted = run(&["--no-daemon", "-n", text(&path)]);
    assert_eq!(code(&deleted), 0);
    assert!(stdout(&deleted).lines().all(|l| l.ends_with("ring.dat (deleted)")), "{}", stdout(&deleted));
    // Another file of that name is another file.
    fs::write(&path, "new").unwrap();
    assert_eq!(code(&run(&["--no-daemon", text(&path)])), 1);
    drop(ring);
}

#[test]
fn unmapped_memory_stays_listed_without_a_name() {
    let memory = memfd("gone", 8 * PAGE as u64);
    let whole = Map::shared(&memory, 4 * PAGE, 0);
    let half = Map::shared(&memory, 4 * PAGE, 0);
    let (whole_at, half_at) = (whole.address, half.address);
    let ring = Ring::new();
    ring.register(&[whole.buffer(), half.buffer()]);
    drop(memory);
    whole.unmap();
    Map { address: half_at + 2 * PAGE as u64, length: 2 * PAGE }.unmap();

    let document = own_pins();
    let pin = at(&document, whole_at)[0];
    assert_eq!((pin["backing"].as_str(), pin["file"].is_null()), (Some("unknown"), true));
    assert_eq!(pin["bytes"], 4 * PAGE);
    assert_eq!(pin["doubts"], serde_json::json!(["no_longer_mapped"]));
    let pin = at(&document, half_at)[0];
    let parts: Vec<(&str, u64)> = pin["parts"]
        .as_array()
        .unwrap()
        .iter()
        .map(|p| (p["backing"].as_str().unwrap(), p["bytes"].as_u64().unwrap()))
        .collect();
    assert_eq!(parts, [("shmem", 2 * PAGE as u64), ("unknown", 2 * PAGE as u64)]);
    assert_eq!(pin["doubts"], serde_json::json!(["partly_unmapped"]));
    drop(ring);
}

#[test]
fn memory_that_io_uring_cannot_have_pinned_is_not_named() {
    let memory = Map::anonymous(PAGE);
    let ring = Ring::new();
    ring.register(&[memory.buffer()]);
    let disk = tempfile::tempfile_in("/var/tmp").unwrap();
    const EXT4: i64 = 0xef53;
    if rustix::fs::fstatfs(&disk).unwrap().f_type != EXT4 {
        return;
    }
    disk.set_len(PAGE as u64).unwrap();
    // SAFETY: replaces our own mapping, which nothing refers to by pointer.
    let over = unsafe {
        let fixed = libc::MAP_SHARED | libc::MAP_FIXED;
        libc::mmap(
            memory.address as *mut _,
            PAGE,
            libc::PROT_READ | libc::PROT_WRITE,
            fixed,
            disk.as_raw_fd(),
            0,
        )
    };
    assert_eq!(over as u64, memory.address);
    let document = own_pins();
    assert_eq!(at(&document, memory.address)[0]["backing"], "unknown");
    drop(ring);
}

#[test]
fn one_ring_of_several_processes_is_one_set_of_pins() {
    let memory = memfd("shared", PAGE as u64);
    let map = Map::shared(&memory, PAGE, 0);
    let ring = Ring::new();
    ring.register(&[map.buffer()]);
    let copy = ring.0.try_clone().unwrap();
    let keeper = Keeper::new(&ring);

    let document = own_pins();
    let pins = at(&document, map.address);
    assert_eq!(pins.len(), 1);
    let holders = pins[0]["holders"].as_array().unwrap();
    let of = |pid: u32| holders.iter().find(|h| h["pid"] == pid).unwrap()["via"].as_array().unwrap().len();
    assert_eq!((holders.len(), of(std::process::id()), of(keeper.0.id())), (2, 2, 1));
    assert!(pins[0]["creator"].is_null());
    assert_eq!(pins[0]["file"]["path"], "/memfd:shared");
    let heldby = run(&["--no-daemon", "-n", "-o", "HELDBY", "-p", &keeper.0.id().to_string()]);
    assert!(stdout(&heldby).contains(&format!("sleep[{}]:", keeper.0.id())), "{}", stdout(&heldby));

    // Only the process that never had the memory mapped keeps it: still listed, under no wrong name.
    drop((ring, copy));
    let output = run(&["--no-daemon", "-J", "-p", &keeper.0.id().to_string()]);
    let document: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let pins = at(&document, map.address);
    assert_eq!(pins.len(), 1);
    assert_eq!((pins[0]["backing"].as_str(), pins[0]["creator"].is_null()), (Some("unknown"), true));
    assert_eq!(pins[0]["holders"][0]["comm"], "sleep");
}

#[test]
fn names_that_want_to_break_the_table() {
    let dir = tmpfs_directory();
    let name = std::ffi::OsStr::from_bytes(b"a\nb\x1b[31m\xff \\012 (deleted)");
    let path = dir.path().join(name);
    let file = File::options().read(true).write(true).create_new(true).open(&path).unwrap();
    file.set_len(PAGE as u64).unwrap();
    let map = Map::shared(&file, PAGE, 0);
    let ring = Ring::new();
    ring.register(&[map.buffer()]);

    let document = own_pins();
    let pin = at(&document, map.address)[0];
    let hex: String = path.as_os_str().as_bytes().iter().map(|b| format!("{b:02x}")).collect();
    assert_eq!(pin["file"]["path_hex"], hex);
    assert_eq!(pin["file"]["deleted"], false);
    let output = lspins().args(["--no-daemon", "-n", "-o", "NAME"]).arg(&path).output().unwrap();
    assert!(stdout(&output).ends_with("/a\\nb\\x1b[31m\\xff \\\\012 (deleted)\n"), "{}", stdout(&output));
    drop(ring);
}

#[test]
fn a_mapped_ring_is_held_by_its_mapping_too() {
    let memory = Map::anonymous(PAGE);
    let ring = Ring::new();
    ring.register(&[memory.buffer()]);
    let map = Map::shared(&ring.0, PAGE, 0);
    let document = own_pins();
    let pin = at(&document, memory.address)[0];
    let via = pin["holders"][0]["via"].as_array().unwrap();
    assert!(via.iter().any(|v| v["mapping"] == map.address), "{via:?}");
    // Without any descriptor its buffers cannot be listed, and that is said.
    drop(ring);
    let output = run(&["--no-daemon", "-J"]);
    let document: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert!(at(&document, memory.address).is_empty());
    assert!(gaps(&document).contains(&"rings_mapped_only"), "{document}");
    map.unmap();
}

#[test]
fn many_buffers_in_one_ring() {
    let map = Map::anonymous(1024 * PAGE);
    let ring = Ring::new();
    let buffers: Vec<(u64, usize)> = (0..1024).map(|n| (map.address + (n * PAGE) as u64, PAGE)).collect();
    ring.register(&buffers);
    let document = own_pins();
    assert!(buffers.iter().all(|(address, _)| at(&document, *address).len() == 1));
}
