//! Which modules are loaded that have something to hook, and where.

use std::fs;
use std::path::Path;

use crate::kernel::lists;

/// A loaded module. One that was removed and loaded anew has another address.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Module {
    /// Its name.
    pub name: String,
    /// Where its code begins; `None` for those who may not see addresses.
    pub address: Option<u64>,
}

/// Those of the wanted modules that are loaded now, by name.
pub fn loaded(wanted: &[&str]) -> Vec<Module> {
    parse(&lists::modules_text(Path::new("/proc")), wanted)
}

fn parse(text: &str, wanted: &[&str]) -> Vec<Module> {
    // One that is being loaded has nothing to hook yet: it is a change when it is up.
    let live = lists::modules(text).filter(|module| module.live && wanted.contains(&module.name));
    let mut modules: Vec<Module> =
        live.map(|module| Module { name: module.name.to_owned(), address: module.address }).collect();
    modules.sort();
    modules
}

/// Whether there is any RDMA device.
pub fn has_rdma_devices() -> bool {
    fs::read_dir("/sys/class/infiniband").is_ok_and(|mut devices| devices.next().is_some())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_wanted_modules_that_are_up_count() {
        let text = "vfio 65536 1 vfio_pci, Live 0xffffffffc0200000\n\
            ib_core 16384 0 - Live 0xffffffffc0000000 (OE)\n\
            ib_uverbs 16384 0 - Loading 0xffffffffc0100000\n\
            other 4096 0 - Live 0xffffffffc0300000\n\
            short\n";
        let modules = parse(text, &["ib_core", "ib_uverbs", "vfio"]);
        let names: Vec<_> = modules.iter().map(|module| (module.name.as_str(), module.address)).collect();
        assert_eq!(names, [("ib_core", Some(0xffff_ffff_c000_0000)), ("vfio", Some(0xffff_ffff_c020_0000))]);
        assert_eq!(parse("", &["ib_core"]), []);
    }
}
