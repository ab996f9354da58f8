//! A pin as asked for on the command line: the options, the memory under it, the anchor, and what was made of them.

use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use clap::{Args, ValueEnum};
use serde_json::Map;

use crate::anchor::{self, Anchor, AnchorOptions, Buffer, Kind};
use crate::hold::Hold;
use crate::layout::{Layout, Segment, Source, Writes};
use crate::mapping::Mapping;
use crate::report::Made;
use crate::sys::{PAGE, parse_size, round_up, thread_id};

/// Bytes pinned where nothing is said.
const DEFAULT_LENGTH: u64 = 64 << 10;

/// What the memory comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Backing {
    /// Anonymous memory.
    Anon,
    /// Anonymous memory with MADV_HUGEPAGE.
    Thp,
    /// A memfd.
    Memfd,
    /// A memfd of 2 MiB huge pages.
    MemfdHuge,
    /// Secret memory (memfd_secret).
    Secret,
    /// The file --path, on whatever file system it is.
    File,
    /// The device DAX node --path.
    Devdax,
}

/// The memory and the number of pins on it.
#[derive(Debug, Clone, Args)]
pub struct PinOptions {
    /// What the memory comes from; anon if neither this nor --layout is given
    #[arg(value_name = "BACKING", conflicts_with = "layout")]
    pub backing: Option<Backing>,
    /// The file to pin; created, and filled up to offset + length, where it is missing or short
    #[arg(long)]
    pub path: Option<PathBuf>,
    /// Bytes to pin [default: 64K, or all of the layout]
    #[arg(long, value_parser = parse_size)]
    pub length: Option<u64>,
    /// Bytes into the file at which the mapping begins, a multiple of 4096
    #[arg(long, value_parser = parse_size, default_value = "0")]
    pub offset: u64,
    /// Bytes into the mapping at which the pin begins
    #[arg(long, value_parser = parse_size, default_value = "0")]
    pub skew: u64,
    /// Map the file MAP_PRIVATE
    #[arg(long)]
    pub private: bool,
    /// Map PROT_READ and, where the kind knows it, ask for a pin that only reads
    #[arg(long)]
    pub read_only: bool,
    /// Pages written before the pin [default: all of anonymous memory, none of a private file]
    #[arg(long, value_name = "WHICH")]
    pub write_pages: Option<Writes>,
    /// Several mappings under one pin; the grammar is below
    #[arg(long)]
    pub layout: Option<Layout>,
    /// Hold its pages by other means, too, so that the kernel cannot move them (64 KiB at most)
    #[arg(long)]
    pub held: bool,
    /// Pins of the same memory
    #[arg(long, default_value_t = 1)]
    pub count: usize,
    /// Make the pin from a second thread, which stays
    #[arg(long)]
    pub service_thread: bool,
    /// When the pin is refused, say so and obey commands all the same
    #[arg(long)]
    pub stay: bool,
    #[command(flatten)]
    pub anchor: AnchorOptions,
}

impl PinOptions {
    fn layout(&self) -> Result<Layout> {
        if let Some(layout) = &self.layout {
            return Ok(layout.clone());
        }
        let path = || self.path.clone().context("--path is missing: it names the file or the device to pin");
        let source = match self.backing.unwrap_or(Backing::Anon) {
            Backing::Anon => Source::Anon { thp: false },
            Backing::Thp => Source::Anon { thp: true },
            Backing::Memfd => Source::Memfd { huge: false },
            Backing::MemfdHuge => Source::Memfd { huge: true },
            Backing::Secret => Source::Secret,
            Backing::File => Source::File { path: path()?, private: self.private },
            Backing::Devdax => Source::File { path: path()?, private: false },
        };
        let length = round_up(self.skew + self.length.unwrap_or(DEFAULT_LENGTH), PAGE);
        let anonymous = matches!(source, Source::Anon { .. });
        let writes = self.write_pages.unwrap_or(if anonymous { Writes::All } else { Writes::None });
        let offset = if anonymous { 0 } else { self.offset };
        Ok(Layout(vec![Segment { source, offset, length, writes }]))
    }
}

/// The memory, the anchor and the pins between them.
pub struct Pins {
    pub kind: Kind,
    pub anchor: Box<dyn Anchor>,
    pub mapping: Mapping,
    options: AnchorOptions,
    pub buffer: Buffer,
    /// Of its pages.
    pub held: Option<Hold>,
    count: usize,
}

impl Pins {
    /// Maps the memory and opens the anchor; nothing is pinned yet.
    pub fn prepare(kind: Kind, options: &PinOptions) -> Result<Self> {
        let layout = options.layout()?;
        let length = match (options.length, &options.layout) {
            (Some(length), _) => length,
            (None, Some(layout)) => layout.length().saturating_sub(options.skew),
            (None, None) => DEFAULT_LENGTH,
        };
        if length == 0 || options.count == 0 {
            bail!("there is nothing to pin: the length and the count are at least 1");
        }
        let mapping = Mapping::make(&layout, options.read_only)?;
        if options.skew + length > mapping.length {
            bail!("the pin ends {} bytes into a mapping of {}", options.skew + length, mapping.length);
        }
        let buffer = Buffer { address: mapping.address + options.skew, length };
        let held = options.held.then(|| Hold::of(buffer.address, length)).transpose()?;
        let mut anchor_options = options.anchor.clone();
        anchor_options.read_only = options.read_only;
        let anchor = anchor::open(kind, &anchor_options)?;
        Ok(Self { kind, anchor, mapping, options: anchor_options, buffer, held, count: options.count })
    }

    /// Makes the pins, on a new anchor where the last was closed.
    pub fn register(&mut self) -> Result<Made> {
        if self.anchor.fd().is_none()
            && !matches!(self.kind, Kind::Driver | Kind::Udmabuf | Kind::IoUringMemory)
        {
            self.anchor = anchor::open(self.kind, &self.options)?;
        }
        let objects = self.anchor.register(&vec![self.buffer; self.count])?;
        let Buffer { address, length } = self.buffer;
        // The others have no pins that do not write.
        let can_read = matches!(self.kind, Kind::RdmaMr | Kind::Driver | Kind::Vfio | Kind::V4l2);
        let reads = can_read && self.options.read_only;
        Ok(Made {
            kind: self.kind.name(),
            pid: std::process::id(),
            tid: thread_id(),
            fd: self.anchor.fd(),
            fd2: self.anchor.second_fd(),
            address,
            length,
            pages: (round_up(address + length, PAGE) - address / PAGE * PAGE) / PAGE,
            mode: if reads { "ro" } else { "rw" },
            objects,
            parts: self.mapping.parts(address, length)?,
            more: Map::new(),
        })
    }

    /// Makes and undoes the pins `iterations` times, with nothing else in the loop.
    pub fn cycle(&mut self, iterations: u64) -> Result<()> {
        let buffers = vec![self.buffer; self.count];
        for _ in 0..iterations {
            self.anchor.register(&buffers)?;
            self.anchor.release()?;
        }
        Ok(())
    }

    /// Puts the pin's memory into a slot of the ring, or empties the slot.
    pub fn update(&mut self, slot: u32, fill: bool) -> Result<()> {
        Ok(self.anchor.update(slot, fill.then_some(self.buffer))?)
    }
}
