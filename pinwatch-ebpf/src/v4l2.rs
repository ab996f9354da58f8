//! V4L2: user memory that a program gives to a device as a buffer (`V4L2_MEMORY_USERPTR`). All drivers get its pages by
//! `vb2_create_framevec`, and give them back by `vb2_destroy_framevec`: when another address is given for the same buffer,
//! when the buffers are freed, or when the device is closed.

use crate::{
    call::{Call, entry_hook, exit_hook},
    generic,
    io_uring::system_call,
    kernel::{error_of, file_of, is_err_or_null, offset, read, read32, try_read},
    pages::{PAGES_ARRAY, Pages},
    refused,
    registry::{MODULE_OFFSETS, Made, made, released},
};
use pinwatch_common::{FOLL_WRITE, kind};

exit_hook!(23, create, v4l2_create, v4l2_create_twin, v4l2_create_kprobe, v4l2_create_kretprobe);
entry_hook!(24, destroy, v4l2_destroy, v4l2_destroy_twin, v4l2_destroy_kprobe);

/// `struct frame_vector *vb2_create_framevec(unsigned long start, unsigned long length, bool write)`
#[inline(always)]
fn create(call: &Call) {
    generic::claim(call);
    let Some(offsets) = MODULE_OFFSETS.get_ptr(0) else { return };
    // SAFETY: a live map value.
    let offsets = unsafe { &*offsets };
    let (vector, address, length) = (call.ret, call.arg(0), call.arg(1));
    let write = offsets.frame_told_write == 0 || call.arg(2) as u8 != 0;
    if is_err_or_null(vector) {
        if let Some(errno) = error_of(vector) {
            refused::memory(call, kind::V4L2, errno, [address, length], write);
        }
        return;
    }
    // A mapping of a device has numbers of pages in their place, and none is pinned.
    if offsets.frame_pages == 0 || try_read::<u8>(vector + offsets.frame_is_pfns) != Some(0) {
        return;
    }
    let fd = system_call()[0] as i32;
    let file = file_of(fd);
    let inode = read(file + offset!(file_inode));
    made(
        call,
        &Made {
            object: vector,
            kind: kind::V4L2,
            address,
            length,
            owner: 0,
            anchor: if file == 0 { 0 } else { read(file + offset!(file_private)) },
            anchor_fd: fd,
            number: if write { FOLL_WRITE as i32 } else { 0 },
            device: if offset!(inode_rdev) == 0 { 0 } else { read32(inode + offset!(inode_rdev)) },
            references: 0,
            pages: Pages { form: PAGES_ARRAY, at: vector + offsets.frame_pages, shift: 0, first: 0 },
        },
    );
}

/// `void vb2_destroy_framevec(struct frame_vector *)`
#[inline(always)]
fn destroy(call: &Call) {
    released(call, call.arg(0));
}
