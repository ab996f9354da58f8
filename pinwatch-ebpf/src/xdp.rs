//! AF_XDP: umems.
//!
//! A umem is made by `xdp_umem_create`. Its end is inlined into several functions before 6.18; what all of them do is to
//! unpin the umem's own array of pages, whose address no other array has meanwhile. So that address is the pin's key, and
//! the pin ends when the pages are given back, in a kworker after the last socket is gone.

use crate::{
    call::{HookCtx, entry_hook, exit_hook},
    generic,
    io_uring::system_call,
    kernel::{error_of, is_err_or_null, offset, read, read32, try_read},
    pages::{PAGES_ARRAY, Pages},
    refused,
    registry::{Made, made, released},
};
use pinwatch_common::subsystems::{Kind, hook};

exit_hook!(xdp_create, create);
entry_hook!(xdp_release, unpin);

/// `struct xdp_umem *xdp_umem_create(struct xdp_umem_reg *)`
#[inline(always)]
fn create(call: &HookCtx<hook::xdp_create>) {
    generic::claim(call);
    let umem = call.ret;
    // The first two members of `struct xdp_umem_reg` (include/uapi/linux/if_xdp.h): addr, len.
    let Some(wanted) = try_read::<[u64; 2]>(call.arg(0)) else { return };
    if is_err_or_null(umem) {
        if let Some(errno) = error_of(umem) {
            refused::memory(call, Kind::Xdp, errno, wanted, true);
        }
        return;
    }
    let pages = read(umem + offset!(xdp_pages));
    if pages == 0 {
        return;
    }
    made(
        call,
        &Made {
            object: pages,
            kind: Kind::Xdp,
            address: wanted[0],
            length: wanted[1],
            owner: umem,
            anchor: umem,
            anchor_fd: system_call()[0] as i32,
            number: read32(umem + offset!(xdp_id)) as i32,
            device: 0,
            references: 0,
            pages: Pages { form: PAGES_ARRAY, at: pages, shift: 0, first: 0 },
        },
    );
}

/// `void unpin_user_pages_dirty_lock(struct page **, unsigned long npages, bool make_dirty)`
#[inline(always)]
fn unpin(call: &HookCtx<hook::xdp_release>) {
    released(call.ctx, call.arg(0));
}
