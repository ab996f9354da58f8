//! Names of character devices.

use std::cell::RefCell;
use std::collections::HashMap;

/// Those that were looked up, by device number as the kernel has it (`dev_t`).
#[derive(Default)]
pub struct CharDevices(RefCell<HashMap<u32, String>>);

impl CharDevices {
    /// The name of a device, as under `/dev`; its numbers if it has none (any more).
    pub fn name(&self, number: u32) -> String {
        self.0.borrow_mut().entry(number).or_insert_with(|| look_up(number)).clone()
    }
}

fn look_up(number: u32) -> String {
    // `MAJOR`, `MINOR` (include/linux/kdev_t.h)
    let (major, minor) = (number >> 20, number & 0xf_ffff);
    let link = std::fs::read_link(format!("/sys/dev/char/{major}:{minor}")).ok();
    let name =
        link.as_ref().and_then(|link| link.file_name()).map(|name| name.to_string_lossy().into_owned());
    name.unwrap_or_else(|| format!("device {major}:{minor}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_has_a_name_or_numbers() {
        let nodes = CharDevices::default();
        assert_eq!(nodes.name(1 << 20 | 3), "null");
        assert_eq!(nodes.name(0xfff << 20 | 7), "device 4095:7");
    }
}
