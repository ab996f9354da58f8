//! Great numbers, for the benchmarks of listing: many io_uring buffers, and as many open descriptors to compare with.

use std::fs::File;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use clap::Args;
use serde_json::json;

use crate::anchor::{self, Anchor, AnchorOptions, Buffer, Kind};
use crate::backing::fill;
use crate::layout::{Layout, Segment, Source, Writes};
use crate::mapping::Mapping;
use crate::report::say;
use crate::session::Session;
use crate::sys::{PAGE, fork_tied, raise_open_files};

/// Buffers that one ring's table takes.
const RING_BUFFERS: usize = 1 << 14;
/// Pages of memory at most under the buffers of one file or of anonymous memory; buffers beyond share them.
const MAX_PAGES: usize = 1 << 14;
/// Mappings that a process may have by default, less some for its own.
const MAX_FILES: usize = 60_000;

/// How many buffers of one page, on what
#[derive(Debug, Args)]
pub struct ManyOptions {
    /// Buffers
    #[arg(long)]
    pub count: usize,
    /// Rings at least; a ring takes 16384 buffers
    #[arg(long, default_value_t = 1)]
    pub rings: usize,
    /// The file under the buffers; anonymous memory without it
    #[arg(long, conflicts_with = "files")]
    pub path: Option<PathBuf>,
    /// That many files under the buffers, taken in turn
    #[arg(long, requires = "dir")]
    pub files: Option<usize>,
    /// Where the files are made
    #[arg(long)]
    pub dir: Option<PathBuf>,
}

/// How many descriptors, on how many files
#[derive(Debug, Args)]
pub struct FdsOptions {
    /// Descriptors
    #[arg(long)]
    pub count: usize,
    /// Where the files are made
    #[arg(long)]
    pub dir: PathBuf,
    /// Files under the descriptors, taken in turn [default: one for each]
    #[arg(long)]
    pub files: Option<usize>,
    /// Processes that have the descriptors, each its own copies
    #[arg(long, default_value_t = 1)]
    pub processes: usize,
}

/// `mkpins many`.
pub fn buffers(options: &ManyOptions) -> Result<i32> {
    if options.count == 0 || options.files == Some(0) {
        bail!("there is nothing to pin: --count and --files are at least 1");
    }
    let layout = layout(options)?;
    let mut mapping = Mapping::make(&layout, false)?;
    // What is measured is the pins, not the descriptors of their files.
    mapping.close();
    let pages = layout.length() / PAGE;
    let rings = options.rings.max(options.count.div_ceil(RING_BUFFERS)).min(options.count);
    raise_open_files(rings as u64 + 64)?;
    let mut anchors: Vec<Box<dyn Anchor>> = Vec::with_capacity(rings);
    let mut next = 0;
    for ring in 0..rings {
        // As even as whole numbers allow.
        let share = options.count / rings + usize::from(ring < options.count % rings);
        let buffer = |at: usize| {
            let address = mapping.address + (at as u64 % pages) * PAGE;
            Buffer { address, length: PAGE }
        };
        let table: Vec<Buffer> = (next..next + share).map(buffer).collect();
        let mut anchor = anchor::open(Kind::IoUring, &AnchorOptions::default())?;
        anchor.register(&table)?;
        anchors.push(anchor);
        next += share;
    }
    say(&json!({
        "kind": Kind::IoUring.name(), "pid": std::process::id(), "count": options.count, "rings": rings,
        "fds": anchors.iter().filter_map(|anchor| anchor.fd()).collect::<Vec<_>>(),
        "files": options.files.unwrap_or(usize::from(options.path.is_some())),
        "address": mapping.address, "pages": pages, "bytes": options.count as u64 * PAGE,
    }));
    Ok(Session::new(None).obey())
}

/// `mkpins fds`.
pub fn descriptors(options: &FdsOptions) -> Result<i32> {
    if options.count == 0 || options.files == Some(0) {
        bail!("there is nothing to open: --count and --files are at least 1");
    }
    raise_open_files(options.count as u64 + 64)?;
    let files = options.files.unwrap_or(options.count);
    let mut open = Vec::with_capacity(options.count);
    for index in 0..options.count {
        let path = numbered(&options.dir, index % files);
        if index < files {
            File::create(&path).with_context(|| format!("cannot create {}", path.display()))?;
        }
        open.push(File::open(&path).with_context(|| format!("cannot open {}", path.display()))?);
    }
    for _ in 1..options.processes {
        if fork_tied()? == 0 {
            loop {
                // SAFETY: waits for a signal.
                unsafe { libc::pause() };
            }
        }
    }
    let processes = options.processes;
    say(
        &json!({"kind": "fds", "pid": std::process::id(), "count": open.len(), "files": files, "processes": processes}),
    );
    Ok(Session::new(None).obey())
}

fn numbered(dir: &Path, index: usize) -> PathBuf {
    dir.join(format!("mkpins-{index:06}"))
}

fn layout(options: &ManyOptions) -> Result<Layout> {
    let page = |source, length, writes| Segment { source, offset: 0, length, writes };
    let whole = options.count.min(MAX_PAGES) as u64 * PAGE;
    let Some((files, dir)) = options.files.zip(options.dir.as_deref()) else {
        return Ok(Layout(vec![match &options.path {
            Some(path) => page(Source::File { path: path.clone(), private: false }, whole, Writes::None),
            None => page(Source::Anon { thp: false }, whole, Writes::All),
        }]));
    };
    if files > MAX_FILES {
        bail!("{files} files need as many mappings; {MAX_FILES} are what a process may have by default");
    }
    raise_open_files(files as u64 + 64)?;
    let mut segments = Vec::with_capacity(files);
    for index in 0..files {
        let path = numbered(dir, index);
        fill(&path, PAGE).with_context(|| format!("cannot make {} ready", path.display()))?;
        segments.push(page(Source::File { path, private: false }, PAGE, Writes::None));
    }
    Ok(Layout(segments))
}
