//! V4L2: user memory that a program gives to a device as a buffer (`V4L2_MEMORY_USERPTR`). All drivers get its pages by
//! `vb2_create_framevec`, and give them back by `vb2_destroy_framevec`: when another address is given for the same buffer,
//! when the buffers are freed, or when the device is closed.

use crate::{
    base::{
        hook::{HookCtx, entry_hook, exit_hook},
        kernel::{error_of, file_of, has, is_err_or_null, offset, read, read32, syscall_arguments, try_read},
        maps::module_layout,
        scratch::Pages,
    },
    file::page::PAGES_ARRAY,
    pin::{
        record::{NewPin, record_pin, released},
        refused,
    },
    subsystem::unclaimed,
};
use pinwatch_common::{
    FOLL_WRITE, PinRecord,
    subsystems::{Kind, hook},
};

exit_hook!(v4l2_create, create);
entry_hook!(v4l2_destroy, destroy);

/// `struct frame_vector *vb2_create_framevec(unsigned long start, unsigned long length, bool write)`
#[inline(always)]
fn create(call: &HookCtx<hook::v4l2_create>) {
    unclaimed::claim(call);
    let Some(layout) = module_layout() else { return };
    let (vector, address, length) = (call.ret, call.arg(0), call.arg(1));
    let write = layout.frame_told_write == 0 || call.arg(2) as u8 != 0;
    if is_err_or_null(vector) {
        if let Some(errno) = error_of(vector) {
            refused::memory(call, Kind::V4l2, errno, [address, length], write);
        }
        return;
    }
    // A mapping of a device has numbers of pages in their place, and none is pinned.
    if layout.has.v4l2 == 0 || try_read::<u8>(vector + layout.frame_is_pfns) != Some(0) {
        return;
    }
    let fd = syscall_arguments()[0] as i32;
    let file = file_of(fd);
    let inode = read(file + offset!(file_inode));
    record_pin(
        call,
        &NewPin {
            object: vector,
            kind: Kind::V4l2,
            address,
            length,
            owner: 0,
            anchor: if file == 0 { 0 } else { read(file + offset!(file_private)) },
            anchor_fd: fd,
            number: if write { FOLL_WRITE as i32 } else { 0 },
            device: if !has!(inode_rdev) { 0 } else { read32(inode + offset!(inode_rdev)) },
            references: 0,
            pages: Pages { form: PAGES_ARRAY, at: vector + layout.frame_pages, shift: 0, first: 0 },
        },
    );
}

/// `void vb2_destroy_framevec(struct frame_vector *)`
#[inline(always)]
fn destroy(call: &HookCtx<hook::v4l2_destroy>) {
    released(call.ctx, call.arg(0));
}

/// The anchor is whatever the driver has in its file's `private_data`.
#[inline(always)]
pub fn anchor_of(_private: u64, _mode: u16) -> u64 {
    0
}

/// A `frame_vector` says nothing of its end.
#[inline(always)]
pub fn is_gone(_object: u64, _pin: &PinRecord) -> bool {
    false
}
