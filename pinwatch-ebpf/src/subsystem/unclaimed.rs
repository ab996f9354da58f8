//! Pins that no subsystem claims: whatever asks for pages for the long term, known to pinwatch or not.
//!
//! Five functions of the kernel give such pages out. Each call that succeeds is a pin, or a further piece of one, unless it
//! was made by a subsystem whose own hook records it. That is told by where it was called from: the first time, the
//! subsystem's hook takes back what is recorded here ([`claim`]), and the place is known from then on.
//!
//! Nobody can tell which of its references a page loses, so the end of such a pin is not hooked. User space looks now and
//! then whether its pages are pinned at all (`pin::liveness`).

use aya_ebpf::{helpers::generated::bpf_get_func_ip, macros::map, maps::HashMap, programs::ProbeContext};
use core::ffi::c_void;
use pinwatch_common::{
    FOLL_WRITE, PinRecord, counter, event,
    subsystems::{BeginHook, Carried, Hook, Kind, Slot},
};

use crate::{
    base::{
        hook::{self, HookCtx, Instance},
        kernel::{choice, copy, current_mm, read, try_read},
        maps::{LIVENESS, PINS, count, look_up},
        preempt,
        scratch::{Pages, Scratch},
        thread_slot,
    },
    file::{
        extents::{self},
        page::PAGES_ARRAY,
        page_extents, vma_extents,
    },
    pin::{
        liveness,
        record::{NewPin, grown, init_record, insert, retract},
        refused::{self, Refused},
        ring::wake,
    },
};

/// Return addresses of the calls that subsystems claim. User space empties it when modules come or go.
#[map]
static CLAIMED: HashMap<u64, u32> = HashMap::with_max_entries(1024, 1);

/// A function that a subsystem hooks is not longer than this.
const LONGEST: u64 = 8192;
/// So many return addresses are looked through for the function that claims a pin.
const NEAR: usize = 8;

/// What a call asked for.
struct Asked {
    /// Address of the first byte; an offset in `file`.
    start: u64,
    /// How many pages.
    wanted: u64,
    flags: u64,
    /// Address of the array of pages or folios.
    pages: u64,
    /// Whose memory (`struct mm_struct`); 0: the caller's.
    memory: u64,
    /// A `struct file`; 0: memory of a process.
    file: u64,
}

/// How the five functions take what is asked.
mod form {
    /// start, number, flags, pages
    pub const PLAIN: u32 = 0;
    /// The same, and it gives an int.
    pub const FAST: u32 = 1;
    /// mm, start, number, flags, pages
    pub const REMOTE: u32 = 2;
    /// start, number, pages, flags
    pub const UNLOCKED: u32 = 3;
    /// file, first, last, folios: always for the long term
    pub const FOLIOS: u32 = 4;
}

/// The call's arguments in one shape, by `argument`.
#[inline(always)]
fn asked(form: u32, argument: impl Fn(u32) -> u64) -> Asked {
    let mut asked = Asked { start: argument(0), wanted: 0, flags: 0, pages: 0, memory: 0, file: 0 };
    match form {
        form::REMOTE => {
            asked.memory = argument(0);
            asked.start = argument(1);
            asked.wanted = argument(2);
            asked.flags = argument(3) & 0xffff_ffff;
            asked.pages = argument(4);
        }
        form::UNLOCKED => {
            asked.wanted = argument(1);
            asked.pages = argument(2);
            asked.flags = argument(3) & 0xffff_ffff;
        }
        form::FOLIOS => {
            asked.file = argument(0);
            asked.start = argument(1);
            asked.wanted =
                ((argument(2) >> choice!(page_shift)) + 1).wrapping_sub(argument(1) >> choice!(page_shift));
            asked.flags = choice!(long_term) | u64::from(FOLL_WRITE);
            asked.pages = argument(3);
        }
        _ => {
            asked.wanted = argument(1);
            asked.flags = argument(2) & 0xffff_ffff;
            asked.pages = argument(3);
        }
    }
    asked
}

/// Makes the programs of one of the five functions. Nearly all calls are of direct I/O, which pins for a moment: that they are
/// not meant is the first thing that is seen.
macro_rules! unclaimed_hook {
    ($hook:ident, $form:path, flags at $flags:literal of $arguments:expr) => {
        const _: () = {
            use pinwatch_common::subsystems::hook::$hook as Hooked;

            impl hook::Programs for Hooked {}

            unclaimed_hook!(@fexit stringify!($hook), $form, $flags, $arguments, Primary, fexit);
            unclaimed_hook!(@fexit concat!(stringify!($hook), "_backup"), $form, $flags, $arguments, Backup, backup);

            #[unsafe(export_name = concat!(stringify!($hook), "_kprobe"))]
            #[unsafe(link_section = "kprobe")]
            extern "C" fn kprobe(ctx: *mut c_void) -> u32 {
                let probe = ProbeContext::new(ctx);
                let asked = asked($form, |n| probe.arg(n as usize).unwrap_or(0));
                if asked.flags & choice!(long_term) != 0 {
                    let number = if asked.wanted > 0xffff_ffff { 0xffff_ffff } else { asked.wanted };
                    let other = if $form == form::FOLIOS { asked.file } else { asked.memory };
                    hook::entered::<Hooked>([asked.start, number << 32 | asked.flags, asked.pages, other]);
                }
                0
            }

            #[unsafe(export_name = concat!(stringify!($hook), "_kretprobe"))]
            #[unsafe(link_section = "kretprobe")]
            extern "C" fn kretprobe(ctx: *mut c_void) -> u32 {
                let Some([start, packed, pages, other]) = hook::returned::<Hooked>() else { return 0 };
                let (file, memory) = if $form == form::FOLIOS { (other, 0) } else { (0, other) };
                let asked =
                    Asked { start, wanted: packed >> 32, flags: packed & 0xffff_ffff, pages, memory, file };
                // SAFETY: a kretprobe's context are the registers; the kernel has put the return address into `rip`.
                let (ret, caller) = unsafe {
                    let registers = ctx.cast::<aya_ebpf::bindings::pt_regs>();
                    ((*registers).rax, (*registers).rip)
                };
                if is_claimed(caller) {
                    return 0;
                }
                pinned(&HookCtx::<Hooked>::of_probe(ctx, [0; 4], ret), &asked, $form, caller);
                0
            }
        };
    };
    (@fexit $name:expr, $form:path, $flags:literal, $arguments:expr, $Instance:ident, $function:ident) => {
        #[unsafe(export_name = $name)]
        #[unsafe(link_section = "fexit")]
        extern "C" fn $function(ctx: *mut c_void) -> i32 {
            if $form != form::FOLIOS && hook::typed::<$flags>(ctx) & choice!(long_term) == 0 {
                return 0;
            }
            if hook::begin::<Hooked>(&Instance::$Instance) {
                let caller = caller(ctx, $arguments);
                if !is_claimed(caller) {
                    let call = HookCtx::<Hooked>::of_trampoline(ctx, hook::result(ctx), &Instance::$Instance);
                    pinned(&call, &asked($form, |n| call.arg(n)), $form, caller);
                }
                preempt::enable();
            }
            0
        }
    };
}

unclaimed_hook!(pin_pages, form::PLAIN, flags at 2 of choice!(pin_pages_args));
unclaimed_hook!(pin_fast, form::FAST, flags at 2 of 4);
unclaimed_hook!(pin_remote, form::REMOTE, flags at 3 of 6);
unclaimed_hook!(pin_unlocked, form::UNLOCKED, flags at 3 of 4);
unclaimed_hook!(pin_folios, form::FOLIOS, flags at 0 of 6);

/// Where the function at whose trampoline this is was called from; 0 if that cannot be told.
///
/// The programs' context is the trampoline's copy of the arguments, which lies right below its frame (arch/x86/net/bpf_jit_comp.c,
/// `__arch_prepare_bpf_trampoline`): behind the arguments the result, the caller's frame pointer, and the function's own return
/// address; before that the address behind the call of the trampoline, where it is called and not jumped to (before 6.19 or so).
#[inline(always)]
fn caller(ctx: *mut c_void, arguments: u64) -> u64 {
    /// A function begins with at most so many bytes before it has called the trampoline.
    const BEGINNING: u64 = 16;
    let Some([first, second]) = try_read::<[u64; 2]>(ctx as u64 + (arguments + 2) * 8) else { return 0 };
    // SAFETY: ctx is the program's own context.
    let function = unsafe { bpf_get_func_ip(ctx) };
    let caller = if first.wrapping_sub(function) <= BEGINNING { second } else { first };
    // Code of the kernel and of its modules is in the last 2 GB.
    if caller >> 31 == u64::MAX >> 31 { caller } else { 0 }
}

/// Whether a subsystem pins from there.
#[inline(always)]
fn is_claimed(caller: u64) -> bool {
    caller != 0 && CLAIMED.get_ptr(&caller).is_some()
}

/// Looks at a call that has come back.
#[inline(always)]
fn pinned<H: BeginHook>(call: &HookCtx<H>, asked: &Asked, form: u32, caller: u64) {
    let result = if form == form::FAST { i64::from(call.ret as i32) } else { call.ret as i64 };
    if result <= 0 {
        if result < 0 {
            let refused = Refused {
                kind: Kind::Unclaimed,
                errno: (result as i32).wrapping_neg(),
                address: asked.start,
                length: asked.wanted << choice!(page_shift),
                caller,
                write: asked.flags & u64::from(FOLL_WRITE) != 0,
                mapped: form != form::FOLIOS && (asked.memory == 0 || asked.memory == current_mm()),
            };
            refused::report(call, &refused);
        }
        return;
    }
    let Some(scratch) = call.scratch() else { return };
    let pages = result as u64;
    let (start, length) = range(asked, form, pages);
    let tag = (caller & CALLER) | (if pages > MANY { MANY } else { pages }) << CALLER.count_ones();
    let before = latest(asked, start, tag, pages);
    // SAFETY: this program's own slot on this CPU.
    unsafe {
        let grows = before != 0 && load_record(scratch, before);
        let pin = &raw mut (*scratch).pin;
        if grows {
            (*pin).length += length;
            (*pin).references += pages;
        } else {
            let new = NewPin {
                object: 0,
                kind: Kind::Unclaimed,
                address: start,
                length,
                owner: caller,
                anchor: 0,
                anchor_fd: -1,
                number: asked.flags as i32,
                device: u32::from(form == form::FOLIOS),
                references: pages,
                pages: Pages { form: PAGES_ARRAY, at: 0, shift: 0, first: 0 },
            };
            init_record(scratch, &new);
        }
        let first = read(asked.pages);
        if form == form::FOLIOS {
            let begin = (*pin).address;
            extents::of_file(scratch, asked.file, begin);
        } else if form == form::REMOTE && asked.memory != current_mm() {
            page_extents::of_first_page(scratch, first);
        } else {
            vma_extents::begin(scratch, start);
            vma_extents::search(scratch, &Pages { form: PAGES_ARRAY, at: asked.pages, shift: 0, first });
        }
        liveness::sample_call(call, scratch, asked.pages, pages - 1);
        // What nobody claims has no object that is known.
        let key = (*pin).sequence;
        if grows {
            const EXIST: u64 = 2;
            if PINS.insert(&key, &*pin, EXIST).is_err() {
                return;
            }
            grown(&*pin, length);
        } else if insert(call.ctx, key, &*pin) {
            count(counter::UNCLAIMED);
            wake(event::UNCLAIMED);
        } else {
            let _ = LIVENESS.remove(&key);
            return;
        }
        let _ =
            thread_slot::put(Slot::carried(Carried::UnclaimedPin), &[key, start + length, tag, asked.pages]);
    }
}

/// The thread's latest pin, if this call goes on where that one stopped; 0 otherwise. It is the same place in the code, and it
/// fills the rest of its array, or the same one anew.
#[inline(always)]
fn latest(asked: &Asked, start: u64, tag: u64, pages: u64) -> u64 {
    let Some(latest) = thread_slot::peek(Slot::carried(Carried::UnclaimedPin)) else { return 0 };
    // SAFETY: a live map value of this thread, of four words.
    let [key, end, before, array] = unsafe { *latest.cast::<[u64; 4]>() };
    let number = before >> CALLER.count_ones();
    let goes_on = end == start
        && before & CALLER == tag & CALLER
        && (asked.pages == array + number * 8 || (asked.pages == array && pages <= number));
    if goes_on { key } else { 0 }
}

/// Gets the record of an unclaimed pin; false if it is no longer there.
///
/// # Safety
/// `scratch` must be this program's own.
#[inline(always)]
unsafe fn load_record(scratch: *mut Scratch, key: u64) -> bool {
    let Some(pin) = look_up(&PINS, &key) else { return false };
    // SAFETY: by the caller; only this thread changes the value in the map.
    unsafe {
        copy(&raw mut (*scratch).pin, pin.as_ptr());
        (*scratch).pin.kind == Kind::Unclaimed as u32 && (*scratch).pin.sequence == key
    }
}

/// The bits of a return address that differ from one to the other; above them there is room for a number.
const CALLER: u64 = (1 << 48) - 1;
const MANY: u64 = 0xffff;

/// Start and length of what was pinned.
#[inline(always)]
fn range(asked: &Asked, form: u32, pages: u64) -> (u64, u64) {
    let start = asked.start >> choice!(page_shift) << choice!(page_shift);
    // Folios are of any size: it is all of them or none.
    (start, (if form == form::FOLIOS { asked.wanted } else { pages }) << choice!(page_shift))
}

/// A subsystem's hook has seen the end of its function: what that has pinned is the subsystem's own business.
#[inline(always)]
pub fn claim<H: Hook>(call: &HookCtx<H>) {
    if choice!(long_term) == 0 {
        return;
    }
    let Some([key, _, _, _]) = thread_slot::take(Slot::carried(Carried::UnclaimedPin)) else { return };
    // SAFETY: ctx is the program's own context.
    let function = unsafe { bpf_get_func_ip(call.ctx) };
    claimed(key, function);
}

#[inline(never)]
fn claimed(key: u64, function: u64) {
    let Some(samples) = look_up(&LIVENESS, &key) else { return };
    let Some(pin) = look_up(&PINS, &key) else { return };
    // The thread's latest may be of an earlier call, and another's: whose it is, its stack says.
    let mut i = 0;
    while i < NEAR {
        let address = samples.stack[i];
        if address.wrapping_sub(function) < LONGEST {
            let caller = pin.owner;
            if caller != 0 {
                let _ = CLAIMED.insert(&caller, &1, 0);
            }
            retract(key);
            let _ = LIVENESS.remove(&key);
            return;
        }
        i += 1;
    }
}

/// A pin was made by a subsystem after all, if its caller is known as one by now: takes it back. The argument is its key.
/// Runs by itself; 1 if it was.
#[unsafe(no_mangle)]
#[unsafe(link_section = "raw_tp/take_back_claimed")]
extern "C" fn take_back_claimed(arguments: *const u64) -> i32 {
    // SAFETY: the context of a raw tracepoint is an array of at least one word here.
    let key = unsafe { *arguments };
    let Some(caller) = look_up(&PINS, &key).map(|pin| pin.owner) else { return 0 };
    if !is_claimed(caller) {
        return 0;
    }
    retract(key);
    let _ = LIVENESS.remove(&key);
    1
}

/// Nobody will claim this pin, nor will it grow: arguments are the thread that made it and its sequence number. Runs by itself.
#[unsafe(no_mangle)]
#[unsafe(link_section = "raw_tp/settled")]
extern "C" fn settled(arguments: *const u64) -> i32 {
    // SAFETY: the context of a raw tracepoint is an array of at least two words here.
    let (thread, sequence) = unsafe { (*arguments, *arguments.add(1)) };
    thread_slot::clear(thread, Slot::carried(Carried::UnclaimedPin), sequence);
    0
}

/// Nobody knows what keeps such a pin.
#[inline(always)]
pub fn anchor_of(_private: u64, _mode: u16) -> u64 {
    0
}

/// User space looks at its pages.
#[inline(always)]
pub fn is_gone(_object: u64, _pin: &PinRecord) -> bool {
    false
}
