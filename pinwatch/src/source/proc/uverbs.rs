//! Who keeps an RDMA context: the netlink says who opened it, procfs who has the device open, and kcmp which descriptors are
//! one open file. Nothing says which open file is which context: that is found by elimination, and where that leaves a choice,
//! the holders stay unknown.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::PathBuf;

use super::collector::Collector;
use super::same_file;
use super::scan::{Scan, UverbsFd};
use crate::model::{Device, Gap, Holder, Holding, HoldingIndex, Via};
use crate::source::host::bounded;
use crate::source::host::rdma::Context;

impl same_file::Descriptor for UverbsFd {
    fn pid(&self) -> u32 {
        self.pid
    }

    fn fd(&self) -> u32 {
        self.fd
    }

    fn ino(&self) -> Option<u64> {
        Some(u64::from(self.device.major) << 32 | u64::from(self.device.minor))
    }
}

/// Gives each context of a device, as far as its open file can be found, its holding. `device` is the name, such as `rxe0`.
pub fn holdings(
    device: &str,
    contexts: &[Context],
    scan: &Scan,
    cx: &mut Collector,
) -> HashMap<u32, HoldingIndex> {
    let mut of_device: HashMap<Device, bool> = HashMap::new();
    let mut is_of = |number: Device| *of_device.entry(number).or_insert_with(|| name_of(number) == device);
    let fds: Vec<UverbsFd> = scan.uverbs.iter().copied().filter(|fd| is_of(fd.device)).collect();
    let nodes: BTreeSet<(Device, u64)> = fds.iter().map(|fd| fd.node).collect();
    let maps: Vec<(u32, u64)> = (scan.uverbs_maps.iter())
        .filter(|map| nodes.contains(&map.node))
        .map(|map| (map.pid, map.address))
        .collect();
    let (groups, refused) = same_file::group(fds, None, same_file::compare);
    if refused > 0 {
        cx.gaps.push(Gap::RdmaNotCompared { device: device.to_owned(), descriptors: refused as u64 });
        return HashMap::new();
    }
    let files: Vec<BTreeSet<(u32, u32)>> =
        groups.iter().map(|group| group.iter().map(|fd| (fd.pid, fd.fd)).collect()).collect();
    let mut holdings = HashMap::new();
    for (context, file) in matched(contexts, &files) {
        let mut via: BTreeMap<u32, Vec<Via>> = BTreeMap::new();
        for (pid, fd) in &files[file] {
            via.entry(*pid).or_default().push(Via::Fd(*fd));
        }
        // A mapping is of this file if its process has no other one of the device.
        for (pid, address) in &maps {
            let others = files.iter().enumerate().filter(|(at, _)| *at != file);
            if via.contains_key(pid) && others.flat_map(|(_, fds)| fds).all(|(other, _)| other != pid) {
                via.entry(*pid).or_default().push(Via::Mapping(*address));
            }
        }
        let holders =
            via.into_iter().filter_map(|(pid, via)| Some(Holder { process: cx.process(pid)?, via }));
        let holding = Holding { holders: holders.collect(), ..Holding::default() };
        holdings.insert(context, cx.into.add_holding(holding));
    }
    holdings
}

/// The RDMA device of a device number.
fn name_of(number: Device) -> String {
    let path = PathBuf::from(format!("/sys/dev/char/{number}/ibdev"));
    let name = bounded::read(&path).unwrap_or_default();
    String::from_utf8_lossy(&name).trim_end().to_owned()
}

/// Contexts, by number, with their open file, by its place. A file can be a context's if its opener has it open; where the
/// opener is gone or has closed it, any that no opener has. Only pairs that are each other's one choice count.
fn matched(contexts: &[Context], files: &[BTreeSet<(u32, u32)>]) -> Vec<(u32, usize)> {
    let has = |file: &BTreeSet<(u32, u32)>, pid: u32| file.iter().any(|(holder, _)| *holder == pid);
    let openers: BTreeSet<u32> = contexts.iter().filter_map(|context| context.opener).collect();
    let choices = |context: &Context| -> Vec<usize> {
        let places = 0..files.len();
        let own: Vec<usize> = context
            .opener
            .map(|opener| places.clone().filter(|at| has(&files[*at], opener)).collect())
            .unwrap_or_default();
        if !own.is_empty() {
            return own;
        }
        places.filter(|at| !openers.iter().any(|opener| has(&files[*at], *opener))).collect()
    };
    let all: Vec<(u32, Vec<usize>)> =
        contexts.iter().map(|context| (context.number, choices(context))).collect();
    let mut pairs = Vec::new();
    for (number, choices) in &all {
        let [only] = choices[..] else { continue };
        if all.iter().all(|(other, theirs)| other == number || !theirs.contains(&only)) {
            pairs.push((*number, only));
        }
    }
    pairs
}

#[cfg(test)]
mod tests {
    use super::*;

    fn context(number: u32, opener: Option<u32>) -> Context {
        Context { number, opener }
    }

    fn file(holders: &[u32]) -> BTreeSet<(u32, u32)> {
        holders.iter().map(|pid| (*pid, 3)).collect()
    }

    #[test]
    fn an_opener_has_its_file_open() {
        let contexts = [context(1, Some(10)), context(2, Some(20))];
        assert_eq!(matched(&contexts, &[file(&[20, 21]), file(&[10])]), [(1, 1), (2, 0)]);
    }

    #[test]
    fn the_one_that_is_left_is_that_of_the_opener_that_is_gone() {
        let contexts = [context(1, None), context(2, Some(20))];
        assert_eq!(matched(&contexts, &[file(&[11, 12]), file(&[20])]), [(1, 0), (2, 1)]);
    }

    #[test]
    fn what_may_be_either_is_neither() {
        let two_of_one = [context(1, Some(10)), context(2, Some(10))];
        assert_eq!(matched(&two_of_one, &[file(&[10]), file(&[10])]), []);
        let both_gone = [context(1, None), context(2, None)];
        assert_eq!(matched(&both_gone, &[file(&[11])]), []);
        let received = [context(1, Some(10)), context(2, Some(20))];
        assert_eq!(matched(&received, &[file(&[10, 20]), file(&[20])]), []);
    }
}
