//! Which modules are loaded that have something to hook, and where.

use std::fs;

/// A loaded module. One that was removed and loaded anew has another address.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Module {
    /// Its name.
    pub name: String,
    /// Where its code begins, as `/proc/modules` prints it.
    pub address: String,
}

/// Those of the wanted modules that are loaded now, by name.
pub fn loaded(wanted: &[&str]) -> Vec<Module> {
    parse(&fs::read_to_string("/proc/modules").unwrap_or_default(), wanted)
}

fn parse(text: &str, wanted: &[&str]) -> Vec<Module> {
    let module = |line: &str| {
        // Name, size, users, who they are, state, address.
        let mut fields = line.split_ascii_whitespace();
        let (name, state) = (fields.next()?, fields.nth(3)?);
        // One that is being loaded has nothing to hook yet: it is a change when it is up.
        let is_wanted = wanted.contains(&name) && state == "Live";
        let address = fields.next().unwrap_or_default().to_owned();
        is_wanted.then(|| Module { name: name.to_owned(), address })
    };
    let mut modules: Vec<Module> = text.lines().filter_map(module).collect();
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
        let names: Vec<(&str, &str)> =
            modules.iter().map(|module| (module.name.as_str(), module.address.as_str())).collect();
        assert_eq!(names, [("ib_core", "0xffffffffc0000000"), ("vfio", "0xffffffffc0200000")]);
        assert_eq!(parse("", &["ib_core"]), []);
    }
}
