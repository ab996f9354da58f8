//! What pintest is told, and what it tells: the other side of the structs and numbers in `pintest.c`.

use std::os::fd::{AsRawFd, RawFd};

use crate::sys::{PAGE, Refused, check, open};

/// So many does `pintest.c` have.
const SLOTS: u32 = 64;

const FOLL_WRITE: u32 = 1;

/// What is to be pinned.
#[derive(Debug, Clone, Copy)]
pub struct Pin {
    /// Through which function: the number of a `How`.
    pub how: u32,
    /// For writing, too.
    pub write: bool,
    /// First byte, or its place in the file.
    pub start: u64,
    /// Pages.
    pub pages: u64,
    /// Pages in one call.
    pub batch: u64,
    /// The file of folios, or -1.
    pub fd: RawFd,
}

#[repr(C)]
struct PinArgument {
    how: u32,
    flags: u32,
    address: u64,
    pages: u64,
    batch: u64,
    pid: i32,
    fd: i32,
    slot: u32,
    unused: u32,
}

#[repr(C)]
struct ReleaseArgument {
    slot: u32,
    place: u32,
}

/// One of the module's slots.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Slot {
    /// Its number.
    pub slot: u32,
    /// Through which function it was filled.
    pub how: u32,
    /// The address of the pages or folios in the kernel.
    pub array: u64,
    /// How many they are.
    pub number: u64,
}

/// The module's letter.
const LETTER: u32 = b'P' as u32;
const PIN: libc::Ioctl = libc::_IOWR::<PinArgument>(LETTER, 1);
const RELEASE: libc::Ioctl = libc::_IOW::<ReleaseArgument>(LETTER, 2);
const LOOK: libc::Ioctl = libc::_IOWR::<Slot>(LETTER, 3);
const ADOPT: libc::Ioctl = libc::_IOW::<Slot>(LETTER, 4);

/// Pins, and tells in which slot that is kept.
pub fn pin(wanted: &Pin) -> Result<u32, Refused> {
    let mut argument = PinArgument {
        how: wanted.how,
        flags: if wanted.write { FOLL_WRITE } else { 0 },
        address: wanted.start / PAGE * PAGE,
        pages: wanted.pages,
        batch: wanted.batch,
        pid: std::process::id().cast_signed(),
        fd: wanted.fd,
        slot: 0,
        unused: 0,
    };
    tell("ioctl(PINTEST_PIN)", PIN, &mut argument)?;
    Ok(argument.slot)
}

/// Lets go of what a slot keeps; `place` is the number of a `Where`.
pub fn release(slot: u32, place: u32) -> Result<(), Refused> {
    tell("ioctl(PINTEST_RELEASE)", RELEASE, &mut ReleaseArgument { slot, place })
}

/// All slots that keep something.
pub fn slots() -> Result<Vec<Slot>, Refused> {
    let mut all = Vec::new();
    for slot in 0..SLOTS {
        let mut argument = Slot { slot, ..Slot::default() };
        tell("ioctl(PINTEST_LOOK)", LOOK, &mut argument)?;
        if argument.number > 0 {
            all.push(argument);
        }
    }
    Ok(all)
}

/// Has the module keep what it had before it was unloaded.
pub fn adopt(mut slot: Slot) -> Result<(), Refused> {
    tell("ioctl(PINTEST_ADOPT)", ADOPT, &mut slot)
}

/// The device is closed at once: what is pinned does not depend on any descriptor.
fn tell<T>(call: &'static str, number: libc::Ioctl, argument: &mut T) -> Result<(), Refused> {
    let device = open("/dev/pintest", "open(/dev/pintest)")?;
    // SAFETY: the number says that the argument is as large as it is, and it lives across the call.
    check(call, unsafe { libc::ioctl(device.as_raw_fd(), number, &raw mut *argument) })?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As `_IOWR('P', 1, struct pintest_pin)` and its like are in C.
    #[test]
    fn the_numbers_tell_the_sizes() {
        assert_eq!([PIN, RELEASE, LOOK, ADOPT], [0xc030_5001, 0x4008_5002, 0xc018_5003, 0x4018_5004]);
    }
}
