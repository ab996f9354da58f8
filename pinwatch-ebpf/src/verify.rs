//! Whether the object of a pin is still there, for user space, which asks when the kernel says that calls went unseen: the
//! release of a pin may have been one of them.

use pinwatch_common::{SCRATCHES, kind, verdict};

use crate::{
    call::Call,
    kernel::{offset, read, try_read},
    registry::{PINS, released},
    thread::{self, purpose},
    witness::WITNESSES,
};

/// Runs by itself: arguments are a pin's key, its owner and its kind. What has no count of its users is not judged.
#[unsafe(no_mangle)]
#[unsafe(link_section = "raw_tp/still_there")]
extern "C" fn still_there(arguments: *const u64) -> i32 {
    // SAFETY: the context of a raw tracepoint is an array of at least three words here.
    let (object, owner, what) = unsafe { (*arguments, *arguments.add(1), *arguments.add(2)) };
    let users = if what == u64::from(kind::XDP) && offset!(xdp_users) != 0 {
        // The umem's memory may be another's by now: then it has other pages.
        if read(owner + offset!(xdp_pages)) == object {
            try_read::<u32>(owner + offset!(xdp_users))
        } else {
            Some(0)
        }
    } else if what == u64::from(kind::IO_URING) && offset!(io_buf_refs) != 0 {
        try_read::<u32>(object + offset!(io_buf_refs))
    } else {
        None
    };
    match users {
        Some(0) => verdict::GONE,
        Some(_) => verdict::THERE,
        None => verdict::UNKNOWN,
    }
}

/// Forgets a pin, which was found to be released: arguments are its key and its sequence number. Meanwhile the key may be
/// another pin's. 1: it was that pin.
#[unsafe(no_mangle)]
#[unsafe(link_section = "raw_tp/forget")]
extern "C" fn forget(arguments: *const u64) -> i32 {
    // SAFETY: as above.
    let (object, sequence) = unsafe { (*arguments, *arguments.add(1)) };
    // SAFETY: a live map value.
    let Some(pin) = PINS.get_ptr(&object).map(|pin| unsafe { &*pin }) else { return 0 };
    let same = pin.sequence == sequence;
    if same {
        thread::clear(pin.pid_tgid, purpose::UNCLAIMED, sequence);
        let call = Call {
            ctx: arguments.cast_mut().cast(),
            probed: [0; 4],
            ret: 0,
            trampoline: false,
            slot: SCRATCHES,
        };
        released(&call, object);
        let _ = WITNESSES.remove(&sequence);
    }
    i32::from(same)
}
