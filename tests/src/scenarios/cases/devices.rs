//! Pins for devices: DMA buffers made of memfds, DMA mappings of VFIO, buffers of video devices; and what rings keep.

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::counts;
use super::programs::hooked_since;
use super::refused;
use super::truth_table::{Cell, OK, cell, one};
use crate::Outcome;
use crate::compare;
use crate::factory::Mkpins;
use crate::guest::{Guest, HOOKED, SOON, eventually, shell};

const RING_MEMORY: &[Cell] = &[
    cell("io_uring-mem anon", OK, OK),
    cell("io_uring-mem memfd --length 16K --count 3", OK, OK),
    cell("io_uring-mem memfd-huge --length 512K", OK, OK),
    cell("io_uring-mem file --path /mnt/tmpfs/f --offset 4096", OK, OK),
    cell("io_uring-mem file --path /mnt/ext4/f", "EOPNOTSUPP", "EFAULT"),
];

/// What a ring keeps of its user's memory other than buffers.
pub fn ring_memory(guest: &mut Guest) -> Result<Outcome> {
    for cell in RING_MEMORY {
        one(guest, cell, cell.arguments)?;
    }
    let mut uses = vec!["io_uring-mem memfd --length 64K"];
    if guest.at_least(6, 5) {
        uses.push("io_uring-mem memfd --memory queues --length 8K");
    }
    if guest.at_least(6, 13) {
        uses.push("io_uring-mem memfd --memory region --length 1M");
    }
    for arguments in &uses {
        kept(guest, arguments).with_context(|| (*arguments).to_owned())?;
    }
    Ok(Outcome::Passed(Some(format!("{} cells, {} uses", RING_MEMORY.len(), uses.len()))))
}

/// Memory that a ring keeps although it is unmapped, until the ring is closed.
fn kept(guest: &Guest, arguments: &str) -> Result<()> {
    let mut mkpins = Mkpins::pinned(arguments)?;
    counts::explained(guest)?;
    mkpins.tell("munmap")?;
    mkpins.tell("close")?;
    let check = |pins: &[Value]| {
        compare::exactly(&mkpins.made, pins)?;
        for pin in pins {
            let holder = &pin["holders"][0];
            let is_held = pin["state"] == "held" && holder["pid"] == mkpins.pid();
            ensure!(is_held && pin["subsystem"] == "io_uring", "{pin}");
        }
        Ok(())
    };
    guest.wait_for(SOON, check)?;
    mkpins.tell("close-anchor")?;
    guest.wait_until_empty()
}

const UDMABUF: &[Cell] = &[
    cell("udmabuf memfd --length 1M --offset 8192", OK, OK),
    cell("udmabuf memfd --count 3", OK, OK),
    cell("udmabuf memfd-huge --length 4M", OK, OK),
    cell("udmabuf --layout memfd:0x3000:4,memfd:0:2,memfd:0x1000:1", OK, OK),
    cell("udmabuf --layout memfd-huge:0:512,memfd:0:3", OK, OK),
    cell("udmabuf file --path /mnt/tmpfs/f", OK, "EINVAL"),
    cell("udmabuf file --path /mnt/huge/f --length 2M", OK, "EINVAL"),
    cell("udmabuf file --path /mnt/ext4/f", OK, "EBADFD"),
];

/// DMA buffers: each has the memfds that it was made of.
pub fn udmabuf(guest: &mut Guest) -> Result<Outcome> {
    if !guest.at_least(6, 12) {
        return Ok(Outcome::Skipped("Debian's kernels have udmabuf from 6.12 on".to_owned()));
    }
    for cell in UDMABUF {
        one(guest, cell, cell.arguments)?;
    }
    let mut mkpins = Mkpins::pinned("udmabuf memfd-huge --length 4M")?;
    // It counts folios, not pages.
    counts::explained(guest)?;
    mkpins.tell("munmap")?;
    mkpins.tell("close")?;
    let check = |pins: &[Value]| {
        compare::exactly(&mkpins.made, pins)?;
        let holder = &pins[0]["holders"][0];
        ensure!(
            pins[0]["state"] == "held"
                && holder["pid"] == mkpins.pid()
                && pins[0]["udmabuf"]["inode"].is_u64(),
            "{}",
            pins[0]
        );
        Ok(())
    };
    guest.wait_for(SOON, check)?;
    // It goes with its last descriptor, however that is closed.
    mkpins.end();
    guest.wait_until_empty()?;
    Ok(Outcome::Passed(Some(format!("{} cells", UDMABUF.len()))))
}

/// On 6.1, and on newer kernels.
const VFIO: &[Cell] = &[
    cell("vfio anon", OK, OK),
    cell("vfio thp --length 4M", OK, OK),
    cell("vfio memfd --offset 8192 --count 2", OK, OK),
    cell("vfio memfd-huge --length 4M", OK, OK),
    cell("vfio file --path /mnt/tmpfs/f --offset 4096", OK, OK),
    cell("vfio file --path /mnt/huge/f --length 2M", OK, OK),
    cell("vfio file --path /mnt/ext4/f", OK, "EFAULT"),
    cell("vfio file --path /mnt/xfs/f", OK, "EFAULT"),
    cell("vfio anon --read-only", OK, OK),
    cell("vfio memfd --read-only", OK, OK),
    cell("vfio file --path /mnt/tmpfs/f --read-only", OK, OK),
    cell("vfio file --path /mnt/ext4/f --read-only", OK, OK),
    cell("vfio file --path /mnt/xfs/f --read-only", OK, OK),
];

/// Those that need persistent memory; DEVDAX stands for the device.
const VFIO_PMEM: &[Cell] = &[
    cell("vfio file --path /mnt/daxext4/f", "EOPNOTSUPP", "EOPNOTSUPP"),
    cell("vfio file --path /mnt/daxxfs/f --read-only", "EOPNOTSUPP", "EOPNOTSUPP"),
    cell("vfio devdax --path DEVDAX --length 2M", OK, OK),
    cell("vfio devdax --path DEVDAX --length 2M --read-only", OK, OK),
];
/// Files of one mapping.
const FILES: usize = 12;

/// DMA mappings: from the moment when VFIO's modules are loaded.
pub fn vfio(guest: &mut Guest) -> Result<Outcome> {
    shell("vfio-up")?;
    wait_until_hooked(guest, "vfio")?;
    for cell in VFIO {
        one(guest, cell, cell.arguments)?;
    }
    // One mapping of many files of huge pages, as a virtual machine's memory is.
    let layout: Vec<String> = (0..FILES).map(|file| format!("file:/mnt/huge/v{file}:0:512")).collect();
    let mut mkpins = Mkpins::pinned(&format!("vfio --layout {}", layout.join(",")))?;
    mkpins.tell("munmap")?;
    mkpins.tell("unlink")?;
    let check = |pins: &[Value]| {
        compare::exactly(&mkpins.made, pins)?;
        let parts = pins[0]["parts"].as_array().map_or(0, Vec::len);
        ensure!(parts == FILES, "{parts} files");
        Ok(())
    };
    guest.wait_for(SOON, check)?;
    counts::explained(guest)?;
    mkpins.tell("release")?;
    mkpins.end();
    guest.wait_until_empty()?;
    // The group's and the device's descriptors keep what was mapped through the container's.
    let mut mkpins = Mkpins::pinned("vfio memfd --with-device")?;
    let pid = mkpins.pid();
    let held = |open: usize| {
        move |pins: &[Value]| {
            ensure!(pins.len() == 1, "{} pins", pins.len());
            let holder = &pins[0]["holders"][0];
            let via = holder["via"].as_array().map_or(0, Vec::len);
            ensure!(
                pins[0]["state"] == "held" && holder["pid"] == pid && via == open,
                "{}",
                pins[0]["holders"]
            );
            Ok(())
        }
    };
    guest.wait_for(SOON, held(3)).context("container, group and device are open")?;
    mkpins.tell("close-anchor")?;
    guest.wait_for(SOON, held(2)).context("group and device are open")?;
    mkpins.tell("close-ring2")?;
    guest.wait_until_empty()?;
    mkpins.end();
    let locked = memlock(guest)?;
    Ok(Outcome::Passed(Some(format!("{} cells, {locked}", VFIO.len()))))
}

/// DMA mappings of persistent memory. The kernel pins device DAX for VFIO and never unpins it again: its pages count as reserved
/// to `put_pfn` (drivers/vfio/vfio_iommu_type1.c). The mapping is gone, what the kernel counts is not, and pinwatch says so.
pub fn vfio_devdax(guest: &mut Guest) -> Result<Outcome> {
    let Some(devdax) = guest.devdax.clone() else {
        return Ok(Outcome::Skipped("this guest has no NVDIMMs".to_owned()));
    };
    shell("vfio-up")?;
    let unattributed = || -> Result<i64> {
        guest.table()?["kernel"]["unattributed"].as_i64().context("the kernel's count is not known")
    };
    let before = unattributed()?;
    for cell in VFIO_PMEM {
        one(guest, cell, &cell.arguments.replace("DEVDAX", &devdax))?;
    }
    let left = unattributed()? - before;
    ensure!(left == 0 || left == 1024, "{left} references are left over of two times 512");
    Ok(Outcome::Passed(Some(format!("the kernel has kept {left} references of {} cells", VFIO_PMEM.len()))))
}

/// VFIO goes by what counts as locked.
fn memlock(guest: &Guest) -> Result<&'static str> {
    shell("chmod 666 /dev/vfio/*")?;
    let user = "setpriv --reuid 1000 --regid 1000 --clear-groups prlimit --memlock=65536:65536";
    let wrapper: Vec<&str> = user.split(' ').collect();
    let mkpins = Mkpins::start_through(&wrapper, "vfio memfd --length 128K")?;
    ensure!(mkpins.refused() == Some("ENOMEM"), "{}", mkpins.made);
    let one = refused::once(&mkpins.made, "vfio", "ENOMEM", "memlock")?;
    ensure!(one["memlock"]["counter"] == "locked" && one["memlock"]["limit"] == 65536, "{}", one["memlock"]);
    guest.wait_until_empty()?;
    Ok("RLIMIT_MEMLOCK by VmLck")
}

const V4L2: &[Cell] = &[
    cell("v4l2 anon --length 128K --skew 64", OK, OK),
    cell("v4l2 memfd --length 128K --count 3", OK, OK),
    cell("v4l2 memfd-huge --length 2M", OK, OK),
    cell("v4l2 file --path /mnt/tmpfs/f --length 128K --offset 4096", OK, OK),
    cell("v4l2 file --path /mnt/ext4/f --length 128K", OK, "EFAULT"),
    cell("v4l2 file --path /mnt/ext4/f --length 128K --read-only --video /dev/video1", "EFAULT", OK),
];

/// Buffers of a video device, from the moment when its modules are loaded.
pub fn v4l2(guest: &mut Guest) -> Result<Outcome> {
    // One device that captures and one that puts out.
    shell("modprobe vivid n_devs=1 node_types=0x101")?;
    wait_until_hooked(guest, "v4l2")?;
    for cell in V4L2 {
        one(guest, cell, cell.arguments)?;
    }
    let mut mkpins = Mkpins::pinned("v4l2 memfd --length 128K")?;
    counts::explained(guest)?;
    mkpins.tell("munmap")?;
    let check = |pins: &[Value]| {
        compare::exactly(&mkpins.made, pins)?;
        ensure!(
            pins[0]["v4l2"]["device"] == "video0"
                && pins[0]["state"] == "held"
                && pins[0]["holders"][0]["pid"] == mkpins.pid(),
            "{}",
            pins[0]
        );
        Ok(())
    };
    guest.wait_for(SOON, check)?;
    mkpins.end();
    guest.wait_until_empty()?;
    // Hooks do not keep a module.
    shell("modprobe -r vivid && rmmod videobuf2_memops")?;
    Ok(Outcome::Passed(Some(format!("{} cells", V4L2.len()))))
}

/// Whether this kernel has what a pin is made of.
pub(super) fn has(guest: &Guest, arguments: &str) -> bool {
    guest.at_least(6, 12) || !arguments.starts_with("udmabuf")
}

/// Loads the modules of VFIO and of a video device, and waits until they are hooked.
pub(super) fn load(guest: &Guest) -> Result<()> {
    shell("vfio-up")?;
    shell("modprobe vivid n_devs=1 node_types=0x101")?;
    wait_until_hooked(guest, "vfio")?;
    wait_until_hooked(guest, "v4l2")
}

/// Waits until the modules of a subsystem are hooked, which were loaded a moment ago.
fn wait_until_hooked(guest: &Guest, subsystem: &str) -> Result<()> {
    eventually(HOOKED, || {
        let table = guest.table()?;
        let is_hooked = hooked_since(&table, subsystem).is_some();
        Ok(if is_hooked { Ok(()) } else { Err(anyhow::anyhow!("the gaps are {}", table["gaps"])) })
    })
}
