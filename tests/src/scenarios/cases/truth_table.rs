//! Which pins succeed on which backing, and that each that does is listed once and right, and each that does not leaves
//! nothing behind.

use anyhow::{Context, Result, bail, ensure};

use super::refused;
use crate::Outcome;
use crate::compare;
use crate::factory::Mkpins;
use crate::guest::{Guest, SOON};

pub(super) const OK: &str = "ok";

/// One cell: what is expected on 6.1, and on all newer kernels.
pub(super) struct Cell {
    pub(super) arguments: &'static str,
    old: &'static str,
    new: &'static str,
}

pub(super) const fn cell(arguments: &'static str, old: &'static str, new: &'static str) -> Cell {
    Cell { arguments, old, new }
}

/// As measured with real kernels: Debian 6.1, 6.12, 6.18, 7.2, 7.3.
const CELLS: &[Cell] = &[
    cell("rdma-mr anon", OK, OK),
    cell("rdma-mr thp --length 4M", OK, OK),
    cell("rdma-mr memfd --offset 8192", OK, OK),
    cell("rdma-mr memfd-huge --length 4M", OK, OK),
    cell("rdma-mr file --path /mnt/tmpfs/f --offset 4096", OK, OK),
    cell("rdma-mr file --path /mnt/huge/f --length 2M", OK, OK),
    cell("rdma-mr file --path /mnt/ext4/f --offset 4096", OK, "EFAULT"),
    cell("rdma-mr file --path /mnt/xfs/f", OK, "EFAULT"),
    cell("rdma-mr file --path /mnt/ext4/f --private", OK, OK),
    cell("rdma-mr anon --read-only", OK, OK),
    cell("rdma-mr memfd --read-only", "EFAULT", OK),
    cell("rdma-mr file --path /mnt/tmpfs/f --read-only", "EFAULT", OK),
    cell("rdma-mr file --path /mnt/ext4/f --read-only", "EFAULT", OK),
    cell("rdma-mr file --path /mnt/xfs/f --read-only", "EFAULT", OK),
    cell("io_uring anon", OK, OK),
    cell("io_uring thp --length 4M", OK, OK),
    cell("io_uring memfd --offset 8192", OK, OK),
    cell("io_uring memfd-huge --length 4M", OK, OK),
    cell("io_uring file --path /mnt/tmpfs/f --offset 4096 --count 3", OK, OK),
    cell("io_uring file --path /mnt/huge/f --length 2M", OK, OK),
    cell("io_uring file --path /mnt/ext4/f", "EOPNOTSUPP", "EFAULT"),
    cell("io_uring file --path /mnt/xfs/f", "EOPNOTSUPP", "EFAULT"),
    cell("xdp anon", OK, OK),
    cell("xdp memfd", OK, OK),
    cell("xdp memfd-huge --length 2M", OK, OK),
    cell("xdp file --path /mnt/tmpfs/f --offset 4096", OK, OK),
    cell("xdp file --path /mnt/huge/f --length 2M", OK, OK),
    cell("xdp file --path /mnt/ext4/f", OK, "EFAULT"),
    cell("xdp file --path /mnt/xfs/f", OK, "EFAULT"),
];

/// Those that need persistent memory; DEVDAX stands for the device.
const PMEM_CELLS: &[Cell] = &[
    cell("rdma-mr file --path /mnt/daxext4/f", "EOPNOTSUPP", "EOPNOTSUPP"),
    cell("rdma-mr file --path /mnt/daxxfs/f", "EOPNOTSUPP", "EOPNOTSUPP"),
    cell("io_uring file --path /mnt/daxxfs/f", "EOPNOTSUPP", "EOPNOTSUPP"),
    cell("xdp file --path /mnt/daxext4/f", "EOPNOTSUPP", "EOPNOTSUPP"),
    cell("rdma-mr devdax --path DEVDAX --length 2M", OK, OK),
    cell("rdma-mr devdax --path DEVDAX --length 2M --read-only", "EFAULT", OK),
    cell("io_uring devdax --path DEVDAX --length 2M", "EOPNOTSUPP", OK),
    cell("xdp devdax --path DEVDAX --length 2M", OK, OK),
];

/// Anonymous memory, memfds, tmpfs, hugetlbfs, ext4 and xfs.
pub fn truth_table(guest: &mut Guest) -> Result<Outcome> {
    for cell in CELLS {
        one(guest, cell, cell.arguments)?;
    }
    Ok(Outcome::Passed(Some(format!("{} cells", CELLS.len()))))
}

/// File systems and devices on persistent memory.
pub fn truth_table_dax(guest: &mut Guest) -> Result<Outcome> {
    let Some(devdax) = guest.devdax.clone() else {
        return Ok(Outcome::Skipped(
            "this guest has no NVDIMMs (`cargo xtask vm run --nvdimm 3`, as `cargo xtask test` does)"
                .to_owned(),
        ));
    };
    for cell in PMEM_CELLS {
        one(guest, cell, &cell.arguments.replace("DEVDAX", &devdax))?;
    }
    Ok(Outcome::Passed(Some(format!("{} cells", PMEM_CELLS.len()))))
}

/// Why the kernel refuses what it refuses.
fn reason(guest: &Guest, arguments: &str, errno: &str) -> &'static str {
    match errno {
        "EOPNOTSUPP" if arguments.contains("/mnt/dax") => "fs-dax",
        // Before 6.5 io_uring looks at the mappings itself.
        "EOPNOTSUPP" => "no-files",
        "EINVAL" => "seals",
        "EBADFD" => "no-memfd",
        _ if guest.at_least(6, 5) => "dirty-tracking",
        _ => "read-only",
    }
}

/// Tries one cell.
pub(super) fn one(guest: &Guest, cell: &Cell, arguments: &str) -> Result<()> {
    let expected = if guest.at_least(6, 2) { cell.new } else { cell.old };
    let mut mkpins = Mkpins::start(arguments)?;
    match mkpins.refused() {
        Some(errno) if errno == expected => {
            guest.wait_until_empty().with_context(|| format!("{arguments}: refused, and still"))?;
            let (kind, reason) =
                (arguments.split(' ').next().unwrap_or_default(), reason(guest, arguments, errno));
            refused::once(&mkpins.made, kind, errno, reason).with_context(|| arguments.to_owned()).map(drop)
        }
        Some(errno) => bail!("{arguments}: {errno} instead of {expected}: {}", mkpins.made),
        None => {
            ensure!(expected == OK, "{arguments}: made, though {expected} was expected");
            let made = mkpins.made.clone();
            guest
                .wait_for(SOON, |pins| compare::exactly(&made, pins))
                .with_context(|| arguments.to_owned())?;
            mkpins.tell("release")?;
            guest.wait_until_empty().with_context(|| format!("{arguments}: released, and still"))
        }
    }
}
