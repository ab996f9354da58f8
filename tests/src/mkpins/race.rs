//! One pin made and undone over a known layout while another thread changes the address space around it without pause:
//! whoever names the files under a pin must not be misled by mappings that come and go.

use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use anyhow::Result;
use clap::Args;
use serde_json::{Value, json};

use crate::anchor::Kind;
use crate::pins::{PinOptions, Pins};
use crate::report::{failure, say};
use crate::session::Session;
use crate::sys::{Dice, PAGE, Refused, check, check_fd};

/// Mappings that the other thread has at any time.
const LIVE: usize = 32;

/// The pin of the race; without a backing, a layout of three mappings of memfds
#[derive(Debug, Args)]
pub struct RaceOptions {
    /// The kind of pin
    #[arg(long, value_enum, default_value = "io_uring")]
    pub kind: Kind,
    /// Times that the pin is made and undone before the last, which stays
    #[arg(long, default_value_t = 1000)]
    pub iterations: u64,
    /// Make and undo the pin once; from then on the other thread changes the protection of 1 GiB, so that mappings are locked
    /// nearly all the time
    #[arg(long)]
    pub locked: bool,
    /// Seed of the other thread's choices
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    #[command(flatten)]
    pub pin: PinOptions,
}

/// `mkpins remap-race`.
pub fn run(options: &RaceOptions) -> Result<i32> {
    let mut pin = options.pin.clone();
    if pin.backing.is_none() && pin.layout.is_none() {
        // Linux 6.1's io_uring refuses a buffer that is not all of one file.
        let layout = match options.kind {
            Kind::IoUring => "memfd:0x3000:4,same:0x9000:2,same:0:3",
            _ => "memfd:0x3000:4,anon:2,memfd:0:3",
        };
        pin.layout = Some(layout.parse().map_err(anyhow::Error::msg)?);
    }
    let mut pins = Pins::prepare(options.kind, &pin)?;
    let stop = Arc::new(AtomicBool::new(false));
    let remaps = Arc::new(AtomicU64::new(0));
    let other = {
        let (stop, remaps, seed) = (Arc::clone(&stop), Arc::clone(&remaps), options.seed);
        let locked = options.locked;
        if locked {
            pins.cycle(1)?;
        }
        std::thread::spawn(move || if locked { lock(&stop, &remaps) } else { remap(&stop, &remaps, seed) })
    };
    while options.locked && remaps.load(Ordering::Relaxed) == 0 && !other.is_finished() {
        std::thread::sleep(Duration::from_millis(1));
    }
    let mut raced = pins.cycle(options.iterations);
    let made = if raced.is_ok() { Some(pins.register()) } else { None };
    stop.store(true, Ordering::Relaxed);
    let other = other.join().unwrap_or_else(|_| Err(anyhow::anyhow!("the remapping thread panicked")));
    if raced.is_ok() {
        raced = other;
    }
    let made = match (raced, made) {
        (Ok(()), Some(made)) => made,
        (raced, _) => raced.and_then(|()| Err(anyhow::anyhow!("nothing was made"))),
    };
    match made {
        Ok(mut made) => {
            made.more.insert("iterations".into(), Value::from(options.iterations));
            made.more.insert("remaps".into(), Value::from(remaps.load(Ordering::Relaxed)));
            say(&made);
            Ok(Session::new(Some(pins)).obey())
        }
        Err(error) if error.is::<Refused>() => {
            say(&json!({"kind": options.kind.name(), "pid": std::process::id(), "error": failure(&error)}));
            Ok(crate::EXIT_REFUSED)
        }
        Err(error) => Err(error),
    }
}

/// Changes the protection of a lot of mapped pages, during which the address space is locked: a few pages, mapped over and over.
fn lock(stop: &AtomicBool, remaps: &AtomicU64) -> Result<()> {
    const LENGTH: usize = 2 << 20;
    const TIMES: usize = 512;
    // SAFETY: the name is a C string that lives across the call.
    let file = check_fd("memfd_create", unsafe { libc::memfd_create(c"over".as_ptr(), libc::MFD_CLOEXEC) })?;
    // SAFETY: takes numbers only.
    check("ftruncate", unsafe { libc::ftruncate(file.as_raw_fd(), LENGTH as libc::off_t) })?;
    let map = |at: *mut libc::c_void, length, protection, flags, fd| {
        // SAFETY: the kernel chooses a free range, or it is in the one that was got so.
        let got = unsafe { libc::mmap(at, length, protection, flags, fd, 0) };
        if got == libc::MAP_FAILED { Err(Refused::last("mmap")) } else { Ok(got) }
    };
    let anywhere = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
    let all = map(std::ptr::null_mut(), LENGTH * TIMES, libc::PROT_NONE, anywhere, -1)?;
    let writable = libc::PROT_READ | libc::PROT_WRITE;
    for time in 0..TIMES {
        let here = libc::MAP_SHARED | libc::MAP_FIXED | libc::MAP_POPULATE;
        map(all.wrapping_byte_add(time * LENGTH), LENGTH, writable, here, file.as_raw_fd())?;
    }
    while !stop.load(Ordering::Relaxed) {
        for protection in [libc::PROT_READ, writable] {
            // SAFETY: the range was mapped here and nothing refers to it.
            check("mprotect", unsafe { libc::mprotect(all, LENGTH * TIMES, protection) })?;
        }
        remaps.fetch_add(1, Ordering::Relaxed);
    }
    Ok(())
}

/// Nothing but mmap and munmap in the loop, so that as many as can be fall into each registration.
fn remap(stop: &AtomicBool, remaps: &AtomicU64, seed: u64) -> Result<()> {
    let mut dice = Dice::new(seed);
    // SAFETY: the name is a C string that lives across the call.
    let file = check_fd("memfd_create", unsafe { libc::memfd_create(c"other".as_ptr(), libc::MFD_CLOEXEC) })?;
    let mut live: Vec<(*mut libc::c_void, usize)> = Vec::with_capacity(LIVE + 1);
    while !stop.load(Ordering::Relaxed) {
        let length = (1 + dice.below(32)) as usize * PAGE as usize;
        // The pages are never touched, so the file needs no length.
        let (flags, fd) = match dice.below(2) {
            0 => (libc::MAP_PRIVATE | libc::MAP_ANONYMOUS, -1),
            _ => (libc::MAP_SHARED, file.as_raw_fd()),
        };
        let offset = dice.below(64) as i64 * PAGE as i64;
        // SAFETY: the kernel chooses a free range.
        let got = unsafe {
            libc::mmap(std::ptr::null_mut(), length, libc::PROT_READ | libc::PROT_WRITE, flags, fd, offset)
        };
        if got == libc::MAP_FAILED {
            return Err(Refused::last("mmap").into());
        }
        live.push((got, length));
        if live.len() > LIVE {
            let (address, length) = live.swap_remove(dice.below(LIVE as u64) as usize);
            // SAFETY: the range was mapped here and nothing refers to it.
            check("munmap", unsafe { libc::munmap(address, length) })?;
        }
        remaps.fetch_add(1, Ordering::Relaxed);
    }
    Ok(())
}
