//! What procfs and netlink know, without any privilege: registered io_uring buffers, RDMA memory regions, AF_XDP
//! umems. Root sees those of all users.
//!
//! Everything here races with the processes that it reads, and everything it reads may be hostile: all is bounded,
//! and what vanishes meanwhile is left out. What cannot be known is in [`Table::gaps`]. Why the crate procfs does not read it:
//! see `source::host`.

mod collector;
mod fdinfo;
mod files;
mod leases;
mod maps;
mod rdma;
mod reader;
mod same_file;
mod scan;
mod uring;
mod uverbs;
mod xdp;

use std::io;

use self::collector::Collector;
pub use self::rdma::MemoryRegions;
pub use self::reader::Reader;
use self::scan::Scan;
pub use self::uring::Rings;
pub use self::xdp::Umems;
use crate::model::{Gap, Table};

/// What this source can never know; always part of [`Table::gaps`].
const BY_NATURE: [Gap; 2] = [Gap::ProcfsSubsystems, Gap::ProcfsMappedFiles];

/// All pins that procfs and netlink show this user, by these readers. An error only if there is no usable procfs.
pub fn table(mut readers: Vec<Box<dyn Reader>>) -> io::Result<Table> {
    let mut cx = Collector::new(&BY_NATURE);
    let sockets: Vec<u64> = readers.iter_mut().flat_map(|reader| reader.sockets(&mut cx)).collect();
    let scan = Scan::run(&sockets)?;
    readers.iter_mut().for_each(|reader| reader.collect(&scan, &mut cx));
    cx.add_unreadable(scan.denied as u64);
    let leases = leases::find(&mut cx);
    let kernel = cx.kernel;
    let mut into = cx.finish();
    if let Some(leases) = leases {
        let seen = leases::observe(leases, kernel, into.rows());
        into.apply_leases(seen);
    }
    Ok(into.finish())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::GapCode;

    #[test]
    fn this_machine_gives_a_table_that_says_what_it_lacks() {
        let readers: Vec<Box<dyn Reader>> =
            vec![Box::new(MemoryRegions), Box::new(Rings), Box::new(Umems::default())];
        let table = table(readers).unwrap();
        let codes: Vec<GapCode> = table.gaps.iter().map(Gap::code).collect();
        assert!(codes.starts_with(&[GapCode::ProcfsSubsystems, GapCode::ProcfsMappedFiles]), "{codes:?}");
        assert!(codes.iter().all(|code| code.is_of_procfs()), "{codes:?}");
    }
}
