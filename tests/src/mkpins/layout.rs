//! What lies under a pin's address range, as asked for on the command line: one or more segments mapped back to back.
//! Pure: the grammar of `--layout` and nothing that touches a file. `mapping` makes it real.

use std::path::PathBuf;
use std::str::FromStr;

use clap::ValueEnum;

use crate::sys::{PAGE, parse_size};

/// The grammar, as `--help` prints it.
pub const GRAMMAR: &str = "\
LAYOUT GRAMMAR (--layout): segments separated by commas, mapped back to back into one range.
  anon:PAGES[:WRITES]                      anonymous memory
  thp:PAGES[:WRITES]                       anonymous memory with MADV_HUGEPAGE
  memfd:OFFSET:PAGES                       a memfd of its own
  memfd-huge:OFFSET:PAGES                  a memfd of 2 MiB huge pages
  file:PATH:OFFSET:PAGES                   a file, shared; hugetlbfs and FS-DAX files too
  private-file:PATH:OFFSET:PAGES[:WRITES]  a file, MAP_PRIVATE
  devdax:PATH:OFFSET:PAGES                 a device DAX node
  same:OFFSET:PAGES                        the file of the nearest segment before that has one, shared
PAGES counts 4 KiB pages. OFFSET is in bytes (decimal, 0x, K/M/G). PATH may hold colons but no comma.
WRITES is none, every2 or all: the pages written before the pin is made; by default all of anonymous
memory and none of a private file. A segment of huge pages must begin on a multiple of 2 MiB.
A file in the middle of another is three segments: file:/a:0:2,file:/b:0:1,file:/a:0x3000:2";

/// Which pages of a segment are written before the pin is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Writes {
    /// None: private file pages stay the file's until the pin itself breaks the sharing.
    None,
    /// Every second page, beginning with the first.
    Every2,
    /// All pages.
    All,
}

/// What a segment is mapped from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// Anonymous memory; `thp` asks for transparent huge pages.
    Anon { thp: bool },
    /// A memfd made for this segment; `huge` has 2 MiB pages.
    Memfd { huge: bool },
    /// Secret memory made for this segment.
    Secret,
    /// A file or a device DAX node by path.
    File { path: PathBuf, private: bool },
    /// The file of the nearest segment before that has one.
    Same,
}

/// One stretch of the range, mapped by one mmap call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Segment {
    /// What it is mapped from.
    pub source: Source,
    /// Bytes into the file; 0 for anonymous memory.
    pub offset: u64,
    /// Bytes of the range that it takes.
    pub length: u64,
    /// Which pages are written before the pin.
    pub writes: Writes,
}

/// The segments in the order of their addresses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layout(pub Vec<Segment>);

impl Layout {
    /// Bytes of the whole range.
    pub fn length(&self) -> u64 {
        self.0.iter().map(|segment| segment.length).sum()
    }
}

impl FromStr for Layout {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        text.split(',').map(str::parse).collect::<Result<Vec<_>, _>>().map(Self)
    }
}

impl FromStr for Segment {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let bad = |why: &str| format!("segment `{text}`: {why}");
        let (kind, rest) = text.split_once(':').ok_or_else(|| bad("no `:` after the kind"))?;
        let mut fields: Vec<&str> = rest.split(':').collect();
        let may_write = matches!(kind, "anon" | "thp" | "private-file");
        let mut writes = if matches!(kind, "anon" | "thp") { Writes::All } else { Writes::None };
        if may_write
            && fields.len() > 1
            && let Some(asked) = fields.last().and_then(|last| Writes::from_str(last, false).ok())
        {
            writes = asked;
            fields.pop();
        }
        let pages = fields.pop().unwrap_or_default();
        let pages = pages.parse::<u64>().map_err(|_| bad(&format!("`{pages}` is no number of pages")))?;
        let length = pages.checked_mul(PAGE).filter(|length| *length > 0);
        let length = length.ok_or_else(|| bad("it needs at least one page"))?;

        let offset = if matches!(kind, "anon" | "thp") {
            0
        } else {
            parse_size(fields.pop().ok_or_else(|| bad("the file offset is missing"))?).map_err(|e| bad(&e))?
        };
        if offset % PAGE != 0 {
            return Err(bad("the file offset is no multiple of 4096"));
        }
        // What is left is the path, put together again where it had colons.
        let path = fields.join(":");
        let source = match (kind, path.is_empty()) {
            ("same", true) => Source::Same,
            ("anon", true) => Source::Anon { thp: false },
            ("thp", true) => Source::Anon { thp: true },
            ("memfd", true) => Source::Memfd { huge: false },
            ("memfd-huge", true) => Source::Memfd { huge: true },
            ("file" | "devdax", false) => Source::File { path: path.into(), private: false },
            ("private-file", false) => Source::File { path: path.into(), private: true },
            ("file" | "devdax" | "private-file", true) => return Err(bad("the path is missing")),
            ("anon" | "thp" | "memfd" | "memfd-huge" | "same", false) => {
                return Err(bad(&format!("`{path}` is one field too many")));
            }
            _ => {
                return Err(bad(
                    "the kind is none of anon, thp, memfd, memfd-huge, same, file, private-file, devdax",
                ));
            }
        };
        Ok(Self { source, offset, length, writes })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(path: &str, private: bool) -> Source {
        Source::File { path: path.into(), private }
    }

    #[test]
    fn all_kinds() {
        let layout: Layout = "file:/a:0x3000:4,anon:1,memfd:0:2,private-file:/c:8K:4:every2".parse().unwrap();
        assert_eq!(
            layout.0,
            vec![
                Segment { source: file("/a", false), offset: 0x3000, length: 4 * PAGE, writes: Writes::None },
                Segment { source: Source::Anon { thp: false }, offset: 0, length: PAGE, writes: Writes::All },
                Segment {
                    source: Source::Memfd { huge: false },
                    offset: 0,
                    length: 2 * PAGE,
                    writes: Writes::None
                },
                Segment { source: file("/c", true), offset: 8192, length: 4 * PAGE, writes: Writes::Every2 },
            ]
        );
        assert_eq!(layout.length(), 11 * PAGE);
    }

    #[test]
    fn paths_keep_their_colons() {
        let segment: Segment = "file:/srv/a:b:0:1".parse().unwrap();
        assert_eq!(segment.source, file("/srv/a:b", false));
        let segment: Segment = "private-file:/srv/a:all:0:3".parse().unwrap();
        assert_eq!((segment.source, segment.writes), (file("/srv/a:all", true), Writes::None));
    }

    #[test]
    fn writes_of_anonymous_memory() {
        let segment: Segment = "anon:3:none".parse().unwrap();
        assert_eq!((segment.length, segment.writes), (3 * PAGE, Writes::None));
        let segment: Segment = "thp:512".parse().unwrap();
        assert_eq!((segment.length, segment.writes), (512 * PAGE, Writes::All));
    }

    #[test]
    fn refused() {
        for (text, why) in [
            ("anon", "no `:`"),
            ("anon:0", "at least one page"),
            ("anon:x", "no number of pages"),
            ("anon:all", "no number of pages"),
            ("anon:/a:1", "one field too many"),
            ("file:0:1", "path is missing"),
            ("file:/a:100:1", "multiple of 4096"),
            ("file:/a:zz:1", "is no size"),
            ("tape:/a:0:1", "none of"),
            ("file:1", "offset is missing"),
        ] {
            let error = text.parse::<Layout>().unwrap_err();
            assert!(error.contains(why), "{text}: {error}");
        }
    }
}
