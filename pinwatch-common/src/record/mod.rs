//! Records that cross the boundary between the BPF programs and user space: in maps, and in the ring buffer. All of them are
//! `#[repr(C)]`, made of integers only, and without padding that is not named: any bytes are a valid value.

mod counters;
mod extent;
mod file;
mod holder;
mod lease;
mod pin;
mod refused;
mod ring;

pub use counters::*;
pub use extent::*;
pub use file::*;
pub use holder::*;
pub use lease::*;
pub use pin::*;
pub use refused::*;
pub use ring::*;

const fn no_padding<T>(sum_of_fields: usize) {
    assert!(size_of::<T>() == sum_of_fields && size_of::<T>().is_multiple_of(8));
}
