//! AF_XDP: umems.
//!
//! A umem is made by `xdp_umem_create`. Its end is inlined into several functions before 6.18; what all of them do is to
//! unpin the umem's own array of pages, whose address no other array has meanwhile. So that address is the pin's key, and
//! the pin ends when the pages are given back, in a kworker after the last socket is gone.

use crate::{
    base::{
        hook::{HookCtx, entry_hook, exit_hook},
        kernel::{error_of, has, is_err_or_null, offset, read, read16, read32, syscall_arguments, try_read},
        maps::is_anchor,
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
    PinRecord,
    subsystems::{Kind, hook},
};

/// `S_IFMT`, `S_IFSOCK` (include/uapi/linux/stat.h)
const S_IFMT: u16 = 0o170_000;
const S_IFSOCK: u16 = 0o140_000;
/// include/linux/socket.h
const AF_XDP: u16 = 44;

exit_hook!(xdp_create, create);
entry_hook!(xdp_release, unpin);

/// `struct xdp_umem *xdp_umem_create(struct xdp_umem_reg *)`
#[inline(always)]
fn create(call: &HookCtx<hook::xdp_create>) {
    unclaimed::claim(call);
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
    record_pin(
        call,
        &NewPin {
            object: pages,
            kind: Kind::Xdp,
            address: wanted[0],
            length: wanted[1],
            owner: umem,
            anchor: umem,
            anchor_fd: syscall_arguments()[0] as i32,
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

/// The umem of an AF_XDP socket.
#[inline(always)]
pub fn anchor_of(private: u64, mode: u16) -> u64 {
    if mode & S_IFMT != S_IFSOCK {
        return 0;
    }
    if !has!(xdp_sock_umem) {
        return 0;
    }
    let socket = read(private + offset!(socket_sk));
    if read16(socket + offset!(sock_family)) != AF_XDP {
        return 0;
    }
    let mut umem = read(socket + offset!(xdp_sock_umem));
    if umem == 0 {
        let pool = read(socket + offset!(xdp_sock_pool));
        umem = if pool == 0 { 0 } else { read(pool + offset!(xdp_pool_umem)) };
    }
    if is_anchor(umem) { umem } else { 0 }
}

/// Whether a umem has no users any more.
#[inline(always)]
pub fn is_gone(object: u64, pin: &PinRecord) -> bool {
    if !has!(xdp_users) {
        return false;
    }
    // The umem's memory may be another's by now: then it has other pages.
    read(pin.owner + offset!(xdp_pages)) != object
        || try_read::<u32>(pin.owner + offset!(xdp_users)) == Some(0)
}
