//! The table for people: widths fitted to the terminal, colour where it means something, and what to know about it.

use tabled::grid::util::string::get_line_width;
use tabled::settings::Color;

use super::columns::{Column, Context};
use super::grid::{GAP, Grid};
use super::select::Selection;
use super::size::counted;
use super::{Row, escape, gaps, size};
use crate::model::{CoverageState, GapCode, LeasePolicy, Table};

/// A name is never cut to less than this.
const SHORTEST_NAME: usize = 24;

/// How to draw.
#[derive(Clone, Copy, Debug)]
pub struct RenderOptions {
    /// Columns of the terminal; `None` for a pipe, which gets everything.
    pub width: Option<usize>,
    /// Whether columns may be left out: not if the user chose them.
    pub may_drop: bool,
    /// Whether to colour.
    pub colour: bool,
    /// Whether to print the header.
    pub header: bool,
}

/// Draws the rows, each with a newline at its end; nothing if there are none.
pub fn table(rows: &[Row], columns: &[&'static Column], options: RenderOptions, context: &Context) -> String {
    if rows.is_empty() {
        return String::new();
    }
    let mut columns = columns.to_vec();
    let mut cells: Vec<Vec<String>> =
        columns.iter().map(|c| rows.iter().map(|r| (c.cell)(r, context)).collect()).collect();
    if let Some(width) = options.width {
        fit(&mut columns, &mut cells, width, options);
    }
    let right = columns.iter().enumerate().filter(|(_, column)| column.right).map(|(at, _)| at);
    let mut grid = Grid::new(right);
    if options.header {
        grid.push(columns.iter().map(|column| column.name));
    }
    let lease = columns.iter().position(|column| column.name == "LEASE").filter(|_| options.colour);
    for (at, row) in rows.iter().enumerate() {
        grid.push(cells.iter_mut().map(|column| std::mem::take(&mut column[at])));
        if let Some(lease) = lease
            && let Some(colour) = colour(row, context)
        {
            grid.colour(lease, colour);
        }
    }
    grid.draw()
}

fn colour(row: &Row, context: &Context) -> Option<Color> {
    match row.pin.coverage.state {
        CoverageState::None if row.table.is_unleased(row.pin, context.policy) => Some(Color::FG_RED),
        CoverageState::Partial | CoverageState::Breaking | CoverageState::Other => Some(Color::FG_YELLOW),
        _ => None,
    }
}

/// Leaves columns out, and last of all cuts names, until the table fits.
fn fit(
    columns: &mut Vec<&'static Column>,
    cells: &mut Vec<Vec<String>>,
    width: usize,
    options: RenderOptions,
) {
    let widest = |(column, cells): (&&Column, &Vec<String>)| {
        let header = if options.header { column.name.len() } else { 0 };
        cells.iter().map(|c| get_line_width(c)).max().unwrap_or(0).max(header)
    };
    let mut widths: Vec<usize> = columns.iter().zip(cells.iter()).map(widest).collect();
    let total = |widths: &[usize]| widths.iter().sum::<usize>() + GAP * widths.len().saturating_sub(1);
    while options.may_drop && total(&widths) > width {
        let droppable = columns.iter().enumerate().filter(|(_, c)| c.drop > 0);
        let Some((at, _)) = droppable.min_by_key(|(_, c)| c.drop) else { break };
        columns.remove(at);
        cells.remove(at);
        widths.remove(at);
    }
    let excess = total(&widths).saturating_sub(width);
    if let Some(at) = columns.iter().position(|c| c.name == "NAME").filter(|_| excess > 0) {
        let room = widths[at].saturating_sub(excess).max(SHORTEST_NAME);
        cells[at].iter_mut().for_each(|name| cut(name, room));
    }
}

/// Cuts a name from the front: its end tells more.
fn cut(name: &mut String, room: usize) {
    if get_line_width(name) <= room {
        return;
    }
    let fits = name.char_indices().map(|(at, _)| at).find(|at| get_line_width(&name[*at..]) < room);
    if let Some(at) = fits {
        *name = format!("…{}", &name[at..]);
    }
}

/// The lines under the table: totals, and the caveats (of [`caveats`]). `page` is the size of a page in bytes.
pub fn footer(
    table: &Table,
    rows: &[Row],
    page: u64,
    policy: LeasePolicy,
    caveats: &[String],
) -> Vec<String> {
    let pins = Selection::pins(rows);
    let bytes = rows.iter().fold(0u64, |sum, r| sum.saturating_add(r.part.bytes));
    let mut totals = format!("{}, {}", counted(pins.len() as u64, "pin"), size::long(bytes));
    match pins.iter().filter(|p| table.is_unleased(p, policy)).count() {
        0 => {}
        n => totals.push_str(&format!("; {n} without a lease")),
    }
    totals.push('.');
    if let Some(kernel) = table.kernel.filter(|kernel| kernel.unattributed() != 0) {
        let pages = kernel.unattributed();
        let bytes = size::long(pages.unsigned_abs().saturating_mul(page));
        let uncertain = match kernel.uncertain {
            Some(0) => String::new(),
            Some(pages) => format!(", give or take {}", size::long(pages.saturating_mul(page))),
            None => "; pins were made or released while counting".to_owned(),
        };
        totals.push_str(&if pages > 0 {
            format!(" The kernel counts {bytes} more as pinned{uncertain}.")
        } else {
            format!(" The kernel counts {bytes} less as pinned{uncertain}.")
        });
    }
    std::iter::once(totals).chain(caveats.iter().map(|l| format!("{l}."))).collect()
}

/// Why the answer may not be exact, a clause each. `reported` are gaps that the user has read about already.
pub fn caveats(table: &Table, reported: &[GapCode]) -> Vec<String> {
    let news = table.gaps.iter().filter(|gap| !reported.contains(&gap.code()));
    let line = |gap| format!("not complete: {}", escape::sentence(&gaps::sentence(gap)));
    let mut lines: Vec<String> = news.map(line).collect();
    if table.hidden.0 > 0 {
        let (pins, bytes) = (counted(table.hidden.0, "pin"), size::long(table.hidden.1));
        lines.push(format!("not shown: {pins} of other users, {bytes}; run as root to see them"));
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::listing::columns::choose;
    use crate::listing::sample;
    use crate::model::{CoverageState, Gap, KernelCount};

    const PIPE: RenderOptions = RenderOptions { width: None, may_drop: true, colour: false, header: true };
    const CONTEXT: Context =
        Context { now: sample::CREATED + 12_000_000_000, bytes: false, policy: LeasePolicy::Persistent };

    fn drawn(options: RenderOptions) -> String {
        let sample = sample::table();
        let rows = Selection::default().rows(&sample);
        table(&rows, &choose(None).unwrap(), options, &CONTEXT)
    }

    #[test]
    fn a_pipe_gets_everything() {
        let text = drawn(PIPE);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 5);
        let words = |line: &str| line.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
        assert_eq!(
            words(lines[0]).join(" "),
            "COMMAND PID USER TYPE OBJECT MODE PINNED LEASE HOLDERS AGE DEVICE INODE NAME"
        );
        assert_eq!(
            words(lines[1]).join(" "),
            "ib_server 812 user2 rdma-mr rxe0 mr 7 rw 64.0M ? 1 12s 253:1 131 /srv/pool.dat"
        );
        assert!(lines[2].ends_with("/srv/q\\n\\x1b[31m\\xff (deleted)"));
        let name = lines[0].find("NAME").unwrap();
        assert!(lines[1..].iter().all(|l| l.as_bytes()[name - 1] == b' ' && l.as_bytes()[name] != b' '));
        assert_eq!(drawn(RenderOptions { header: false, ..PIPE }).lines().count(), 4);
    }

    #[test]
    fn a_narrow_terminal_loses_device_and_inode_first() {
        let wide = drawn(PIPE).lines().map(str::len).max().unwrap();
        let header =
            |width| drawn(RenderOptions { width: Some(width), ..PIPE }).lines().next().unwrap().to_owned();
        assert!(header(wide).contains("DEVICE"));
        assert!(!header(wide - 1).contains("DEVICE") && header(wide - 1).contains("INODE"));
        let narrow = drawn(RenderOptions { width: Some(84), ..PIPE });
        assert!(narrow.lines().all(|l| l.chars().count() <= 84), "{narrow}");
        assert!(narrow.contains("LEASE") && narrow.contains("/srv/pool.dat"));
        let kept = drawn(RenderOptions { width: Some(20), may_drop: false, ..PIPE });
        assert!(kept.contains("DEVICE") && kept.contains('…'));
        assert!(!drawn(RenderOptions { width: Some(0), ..PIPE }).is_empty());
    }

    #[test]
    fn names_are_cut_from_the_front() {
        let mut name = "/a/very/long/name/漢字".to_owned();
        cut(&mut name, 10);
        assert_eq!(name, "…name/漢字");
        assert!(get_line_width(&name) <= 10);
    }

    #[test]
    fn no_rows_draw_nothing() {
        let sample = Table::default();
        assert_eq!(table(&Selection::default().rows(&sample), &choose(None).unwrap(), PIPE, &CONTEXT), "");
        assert_eq!(footer(&sample, &[], 4096, LeasePolicy::Persistent, &[]), ["0 pins, 0 bytes."]);
    }

    #[test]
    fn the_footer_says_what_is_not_known() {
        let mut sample = sample::table();
        sample.gaps.push(Gap::HoldersUnknown { why: "a\x1b cause".into() });
        sample.hidden = (2, 1 << 30);
        sample.kernel =
            Some(KernelCount { references: 300, attributed: 40, unclaimed: 4, uncertain: Some(2) });
        let rows = Selection::default().rows(&sample);
        let lines = footer(&sample, &rows, 4096, LeasePolicy::Persistent, &caveats(&sample, &[]));
        assert_eq!(
            lines[0],
            "3 pins, 84.0 MiB. The kernel counts 1.0 MiB more as pinned, give or take 8.0 KiB."
        );
        assert!(
            lines[1].starts_with("not complete: ") && lines[1].ends_with("a\\x1b cause."),
            "{}",
            lines[1]
        );
        assert_eq!(caveats(&sample, &[GapCode::HoldersUnknown]).len(), 1);
        assert_eq!(lines[2], "not shown: 2 pins of other users, 1.0 GiB; run as root to see them.");
    }

    #[test]
    fn colour_only_where_it_means_something() {
        let coloured = drawn(RenderOptions { colour: true, ..PIPE });
        assert!(!coloured.contains('\x1b'));
        assert_eq!(CoverageState::Unknown.word(), "unknown");
    }
}
