//! One worker of a churn: a few anchors, each either empty or with pins, changed in an order that the seed decides.

use std::os::fd::RawFd;
use std::sync::atomic::Ordering;
use std::time::Duration;

use anyhow::Result;
use serde_json::{Map, Value, json};

use super::{ChurnOptions, Shared};
use crate::anchor::{self, Anchor, AnchorOptions, Buffer, Kind};
use crate::layout::{Layout, Segment, Source, Writes};
use crate::mapping::Mapping;
use crate::sys::{Dice, PAGE, Refused, close_raw};

/// Anchors that a worker has at a time.
const ANCHORS: usize = 3;
/// One in so many releases is made by closing the anchor with the pins still on it.
const CLOSE_ODDS: u64 = 16;
/// Pages that one pin takes at most.
const MOST_PAGES: u64 = 8;

/// Works until all pins are claimed; then keeps some and waits to be killed if `keep` says where to tell of them, else
/// ends.
pub fn run(options: &ChurnOptions, shared: &Shared, seed: u64, keep: Option<RawFd>) -> ! {
    let code = match work(options, shared, seed, keep) {
        Ok(()) => 0,
        Err(error) => {
            if let Some(refused) = error.downcast_ref::<Refused>() {
                let first = Ordering::Relaxed;
                let _ = shared.refused.compare_exchange(0, refused.errno, first, first);
            }
            eprintln!("mkpins: churn worker {}: {error:#}", std::process::id());
            1
        }
    };
    // SAFETY: ends the process at once; what the coordinator's copy of the runtime would do at exit is not ours.
    unsafe { libc::_exit(code) }
}

/// An anchor and the number of pins on it.
struct Held {
    anchor: Box<dyn Anchor>,
    pins: u64,
}

fn work(options: &ChurnOptions, shared: &Shared, seed: u64, keep: Option<RawFd>) -> Result<()> {
    let mut dice = Dice::new(seed);
    let layout = layout(options);
    let mapping = Mapping::make(&layout, false)?;
    let open = |dice: &mut Dice| {
        let sparse = options.anchor.sparse || dice.below(2) == 0;
        anchor::open(options.kind, &AnchorOptions { sparse, ..options.anchor.clone() })
    };
    let mut all = Vec::new();
    for _ in 0..ANCHORS {
        all.push(Held { anchor: open(&mut dice)?, pins: 0 });
    }
    loop {
        let held = &mut all[dice.below(ANCHORS as u64) as usize];
        if held.pins > 0 {
            if dice.below(CLOSE_ODDS) == 0 {
                held.anchor.close()?;
                held.anchor = open(&mut dice)?;
            } else {
                held.anchor.release()?;
            }
            shared.releases.fetch_add(held.pins, Ordering::Relaxed);
            held.pins = 0;
            continue;
        }
        if (1..shared.floor.load(Ordering::Relaxed)).contains(&shared.remaining.load(Ordering::Relaxed)) {
            std::thread::sleep(Duration::from_micros(50));
            continue;
        }
        let buffers = buffers(options.kind, &mapping, &mut dice);
        let wanted = buffers.len() as i64;
        if shared.remaining.fetch_sub(wanted, Ordering::Relaxed) <= 0 {
            break;
        }
        held.anchor.register(&buffers)?;
        held.pins = buffers.len() as u64;
        shared.registrations.fetch_add(held.pins, Ordering::Relaxed);
    }
    // Nobody is killed once this is set, so what is made from here on stays.
    while shared.finish.load(Ordering::Acquire) == 0 {
        std::thread::sleep(Duration::from_millis(1));
    }
    let Some(tell) = keep else { return Ok(()) };
    drop(all);
    let mut anchor = open(&mut dice)?;
    let objects = anchor.register(&buffers(options.kind, &mapping, &mut dice))?;
    shared.registrations.fetch_add(objects.len() as u64, Ordering::Relaxed);
    let mut lines = Vec::new();
    for object in objects {
        let mut line = Map::new();
        line.insert("pid".into(), json!(std::process::id()));
        line.insert("kind".into(), json!(options.kind.name()));
        line.insert("fd".into(), json!(anchor.fd()));
        line.insert("parts".into(), json!(mapping.parts(object.address, object.length)?));
        let Value::Object(of_object) = json!(object) else { continue };
        line.extend(of_object);
        lines.push(line);
    }
    let mut text = serde_json::to_string(&lines)?;
    text.push('\n');
    // SAFETY: writes the string's own bytes. Short of the size that a pipe takes at once, so never torn.
    unsafe { libc::write(tell, text.as_ptr().cast(), text.len()) };
    close_raw(tell)?;
    loop {
        // SAFETY: waits for a signal.
        unsafe { libc::pause() };
    }
}

fn layout(options: &ChurnOptions) -> Layout {
    if let Some(layout) = &options.layout {
        return layout.clone();
    }
    let length = options.pages.max(MOST_PAGES) * PAGE;
    let segment = match &options.path {
        Some(path) => {
            let source = Source::File { path: path.clone(), private: false };
            Segment { source, offset: 0, length, writes: Writes::None }
        }
        None => Segment { source: Source::Anon { thp: false }, offset: 0, length, writes: Writes::All },
    };
    Layout(vec![segment])
}

/// One to three ranges of the mapping, whole pages or not where the kind allows it.
fn buffers(kind: Kind, mapping: &Mapping, dice: &mut Dice) -> Vec<Buffer> {
    let pages = mapping.length / PAGE;
    let one = |dice: &mut Dice| {
        let length = 1 + dice.below(MOST_PAGES.min(pages));
        let first = dice.below(pages - length + 1);
        let ragged = kind != Kind::Xdp && dice.below(4) == 0;
        let cut = if ragged { 1 + dice.below(1000) } else { 0 };
        Buffer { address: mapping.address + first * PAGE + cut, length: length * PAGE - 2 * cut }
    };
    (0..1 + dice.below(3)).map(|_| one(dice)).collect()
}
