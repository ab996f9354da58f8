//! What crosses the boundary between the BPF programs and user space: records, and the list of kernel offsets.
//!
//! Everything is `#[repr(C)]` without implicit padding, asserted below at compile time, and made of integers only, so
//! that any bytes are a valid value. Nothing here depends on a kernel version.

#![no_std]

mod kfuncs;
mod layout;
mod record;
pub mod subsystems;
mod values;

pub use kfuncs::*;
pub use layout::*;
pub use record::*;
pub use values::*;

#[cfg(feature = "user")]
mod pod {
    use super::*;

    macro_rules! pod {
        ($($record:ty),+ $(,)?) => { $(
            // SAFETY: `repr(C)`, only integers, no padding (asserted in record/ and layout.rs): any bytes are valid.
            unsafe impl aya::Pod for $record {}
        )+ };
    }

    pod!(
        Event,
        ExtentKey,
        ShareKey,
        ExtentRecord,
        FileKey,
        LeaseEvent,
        LeaseRecord,
        OverlayQuery,
        PinEvent,
        RefusedEvent,
        WaiterRecord,
        SampledPages,
        FileRecord,
        LongPath,
        ModuleLayout,
        Totals,
        KernelLayout,
        PinRecord,
        DeviceName,
    );
}
