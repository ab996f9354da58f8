//! io_uring buffers in more than one ring (`IORING_REGISTER_CLONE_BUFFERS`, 6.12 and later): any of the rings keeps them.
//!
//! Which rings a buffer was cloned into is recorded when it is. Whether they still have it is looked up when somebody asks:
//! a slot can be emptied in many ways.

use aya_ebpf::{helpers::generated::bpf_loop, macros::map, maps::HashMap};
use core::ffi::c_void;
use pinwatch_common::{ShareKey, counter, subsystems::hook};

use crate::base::{
    hook::{HookCtx, exit_hook},
    kernel::{choice, offset, opaque_zero, read, read32},
    maps::{PINS, count, look_up},
};

/// Rings that buffers of another ring were cloned into.
#[map]
static SHARES: HashMap<ShareKey, u32> = HashMap::with_max_entries(1 << 14, 1);

/// `IORING_MAX_REG_BUFFERS`
const MAX_BUFFERS: u32 = 1 << 14;

exit_hook!(io_clone, cloned);

/// Where a walk over a ring's table of buffers is.
#[repr(C)]
struct Slots {
    ring: u64,
    table: u64,
    count: u64,
    index: u64,
    /// The buffer that is looked for; 0: all are recorded.
    wanted: u64,
    found: u64,
}

impl Slots {
    #[inline(always)]
    fn walk(ring: u64, wanted: u64) -> u64 {
        let mut slots = Slots {
            ring: ring | opaque_zero(),
            table: read(ring + offset!(io_ctx_buffers)),
            count: u64::from(read32(ring + offset!(io_ctx_buffer_count))),
            index: opaque_zero(),
            wanted: wanted | opaque_zero(),
            found: opaque_zero(),
        };
        // SAFETY: the callback gets a pointer that outlives the loop.
        unsafe { bpf_loop(MAX_BUFFERS, next_slot as *mut c_void, (&raw mut slots).cast(), 0) };
        slots.found
    }
}

extern "C" fn next_slot(_step: u32, context: *mut c_void) -> i64 {
    // SAFETY: see `Slots::walk`.
    let slots = unsafe { &mut *context.cast::<Slots>() };
    if slots.index >= slots.count || slots.table == 0 {
        return 1;
    }
    let mut buffer = read(slots.table + slots.index * 8);
    slots.index += 1;
    if choice!(io_uring_returns_node) != 0 && buffer != 0 {
        buffer = read(buffer + offset!(io_node_buf));
    }
    if buffer == 0 {
        return 0;
    }
    if slots.wanted != 0 {
        slots.found = u64::from(buffer == slots.wanted);
        return slots.found as i64;
    }
    if let Some(pin) = look_up(&PINS, &buffer) {
        if pin.anchor != slots.ring
            && SHARES.insert(&ShareKey { object: buffer, anchor: slots.ring }, &1, 0).is_err()
        {
            count(counter::SHARES_FULL);
        }
    }
    0
}

/// `int io_register_clone_buffers(struct io_ring_ctx *, void __user *)`
#[inline(always)]
fn cloned(call: &HookCtx<hook::io_clone>) {
    if (call.ret as i32) >= 0 {
        count(counter::CLONES);
        Slots::walk(call.arg(0), 0);
    }
}

/// Whether a ring has a buffer, for user space, which runs this by itself. The ring may be gone, and its memory be something
/// else's: user space asks only for rings that some process holds.
#[unsafe(no_mangle)]
#[unsafe(link_section = "raw_tp/has")]
extern "C" fn ring_has(arguments: *const u64) -> i32 {
    // SAFETY: the context of a raw tracepoint is an array of at least two words here.
    let (ring, buffer) = unsafe { (*arguments, *arguments.add(1)) };
    Slots::walk(ring, buffer) as i32
}
