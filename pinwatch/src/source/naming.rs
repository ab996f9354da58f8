//! What the records of the BPF programs stand for: what the rooms of the subsystems are given to read them by, and what they
//! answer. The rooms lie above the sources, so that a source is handed the function that asks them.

use pinwatch_common::subsystems::UnknownKind;
use pinwatch_common::{DeviceName, PinRecord};
use rustc_hash::FxHashMap as HashMap;

use super::file_records;
use super::host::char_devices::CharDevices;
use super::stacks::Callers;
use crate::model::object::unclaimed;
use crate::model::{Mode, Object};

/// What a record stands for, as its subsystem's room reads it.
pub struct Described {
    /// The kernel object.
    pub object: Object,
    /// Whether the device may write.
    pub mode: Mode,
    /// The user address of its first byte, if it has one.
    pub address: Option<u64>,
}

/// Reads a record. An error is a kind that this version does not know.
pub type Describe = fn(&PinRecord, &Naming<'_>) -> Result<Described, UnknownKind>;

/// How records are read.
pub struct Reading<'a> {
    /// The code that asked for pins that nobody claims.
    pub callers: &'a Callers,
    /// What each record stands for.
    pub describe: Describe,
}

/// What names are taken from.
pub struct Naming<'a> {
    /// Names of RDMA devices, by index.
    pub rdma_devices: &'a HashMap<u32, DeviceName>,
    /// Names of character devices.
    pub char_devices: &'a CharDevices,
    /// The code that asked for pins that nobody claims.
    pub callers: &'a Callers,
}

impl Naming<'_> {
    /// The name of an RDMA device, or its index.
    pub fn rdma_device(&self, index: u32) -> String {
        let name = self.rdma_devices.get(&index).map(|device| file_records::until_nul(&device.name));
        name.map_or_else(|| format!("device {index}"), |name| String::from_utf8_lossy(name).into_owned())
    }

    /// The name of a character device, by its number as the kernel has it (`dev_t`).
    pub fn char_device(&self, number: u32) -> String {
        self.char_devices.name(number)
    }

    /// The code that asked for a pin that nobody claims.
    pub fn caller(&self, sequence: u64) -> unclaimed::Object {
        self.callers.object(sequence)
    }
}
