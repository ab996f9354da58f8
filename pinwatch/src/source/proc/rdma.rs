//! RDMA memory regions, from the RDMA netlink (include/uapi/rdma/rdma_netlink.h), which any user may ask.
//! It names the object, never the memory: a row from here has a size and no file.

use std::collections::HashMap;

use super::collector::Collector;
use super::reader::Reader;
use super::scan::Scan;
use super::uverbs;
use crate::model::{Doubt, Gap, HoldingIndex, Mode, Origin, Subsystem, object};
use crate::source::host::process;
use crate::source::host::rdma::{self, Listing, Region};
use crate::source::observation::{Held, Memory, PinObservation};

/// The memory regions that the RDMA netlink lists.
pub struct MemoryRegions;

impl Reader for MemoryRegions {
    fn collect(&mut self, scan: &Scan, cx: &mut Collector) {
        collect(scan, cx);
    }
}

/// Adds all memory regions that processes have registered.
fn collect(scan: &Scan, cx: &mut Collector) {
    let devices = match rdma::devices() {
        Ok(devices) => devices,
        Err(e) => {
            // A kernel without RDMA has no such family, or no one to answer.
            if !rdma::is_absent(&e) {
                cx.gaps.push(Gap::RdmaNotListed { device: None, why: e.to_string() });
            }
            return;
        }
    };
    let mut any = false;
    let mut unheld = 0;
    let mut interrupted = devices.interrupted;
    for rdma::Device { index, name } in devices.entries {
        any = true;
        // First: a region found later has its domain and context in these, unless both are newer.
        let contexts = rdma::contexts(index).map(|found| found.entries).unwrap_or_default();
        let domains: HashMap<u32, u32> =
            rdma::domains(index).map(|found| found.entries.into_iter().collect()).unwrap_or_default();
        let holdings = uverbs::holdings(&name, &contexts, scan, cx);
        match rdma::regions(index) {
            Ok(Listing { entries, interrupted: changed }) => {
                interrupted |= changed;
                for region in entries {
                    let context = region.domain.and_then(|domain| domains.get(&domain));
                    let holding = context.and_then(|context| holdings.get(context)).copied();
                    unheld += u64::from(holding.is_none());
                    add(&name, &region, holding, cx);
                }
            }
            Err(e) => cx.gaps.push(Gap::RdmaNotListed { device: Some(name), why: e.to_string() }),
        }
    }
    if interrupted {
        cx.gaps.push(Gap::ListingChanged { subsystem: Subsystem::Rdma });
    }
    if any {
        cx.gaps.push(Gap::RdmaRegionsOnly);
    }
    if unheld > 0 {
        cx.gaps.push(Gap::RdmaHoldersUnknown { regions: unheld });
    }
}

fn add(device: &str, region: &Region, holding: Option<HoldingIndex>, cx: &mut Collector) {
    // The number is a thread's: libraries register from service threads.
    let creator = region.tid.and_then(process::thread_group).and_then(|pid| cx.process(pid));
    let sequence = cx.next_sequence();
    cx.into.observe(PinObservation {
        origin: Origin::Proc,
        sequence,
        object: object::rdma::Object::Region {
            device: device.to_owned(),
            mrn: region.mrn,
            lkey: region.lkey,
            rkey: region.rkey,
        }
        .into(),
        mode: Mode::Unknown,
        bytes: region.length,
        // Without the address it is not known how many pages the ends touch; an iova usually is the address.
        pages: cx.pages(region.iova.unwrap_or(0), region.length),
        address: None,
        memory: Memory::Unknown,
        doubts: [Doubt::MemoryUnknown, Doubt::MaybeNotPinned].into_iter().collect(),
        creator,
        held: holding.map_or(Held::Unknown, Held::By),
        created: None,
    });
}
