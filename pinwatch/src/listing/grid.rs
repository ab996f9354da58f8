//! Cells drawn as columns: the one place that knows how a table for people is laid out. What the cells say, and which columns
//! there are, is decided above this; text of other people comes here escaped.

use tabled::builder::Builder;
use tabled::settings::object::{Cell, Columns};
use tabled::settings::{Alignment, Color, Padding, Style};

/// Columns of the terminal between two columns of the table.
pub const GAP: usize = 1;

/// A table that is being filled.
#[derive(Default)]
pub struct Grid {
    lines: Builder,
    right: Vec<usize>,
    coloured: Vec<(usize, usize, Color)>,
}

impl Grid {
    /// An empty one; the columns with these numbers are set to the right.
    pub fn new(right: impl IntoIterator<Item = usize>) -> Self {
        Self { right: right.into_iter().collect(), ..Self::default() }
    }

    /// Adds a line: the header, or a row. A cell does not end in a space: see [`escape::name`](super::escape::name).
    pub fn push<T: Into<String>>(&mut self, cells: impl IntoIterator<Item = T>) {
        self.lines.push_record(cells);
    }

    /// Colours a cell of the latest line.
    pub fn colour(&mut self, column: usize, colour: Color) {
        if let Some(line) = self.lines.count_records().checked_sub(1) {
            self.coloured.push((line, column, colour));
        }
    }

    /// The lines, each with a newline at its end and no space before it; nothing if there are none.
    pub fn draw(self) -> String {
        if self.lines.count_records() == 0 {
            return String::new();
        }
        let mut table = self.lines.build();
        table.with(Style::empty()).with(Padding::new(0, GAP, 0, 0)).with(Alignment::left());
        for column in self.right {
            table.modify(Columns::one(column), Alignment::right());
        }
        for (line, column, colour) in self.coloured {
            table.modify(Cell::new(line, column), colour);
        }
        let drawn = table.to_string();
        let mut out = String::with_capacity(drawn.len());
        for line in drawn.lines() {
            out.push_str(line.trim_end());
            out.push('\n');
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_they_have_to_be() {
        let mut grid = Grid::new([1]);
        grid.push(["A", "NUMBER", "NAME"]);
        grid.push(["漢", "1", "x y"]);
        grid.push(["", "22", ""]);
        assert_eq!(grid.draw(), "A  NUMBER NAME\n漢      1 x y\n       22\n");
        assert_eq!(Grid::new([]).draw(), "");
    }

    #[test]
    fn a_colour_takes_no_room() {
        let mut grid = Grid::default();
        grid.colour(0, Color::FG_RED);
        grid.push(["a", "b"]);
        grid.colour(0, Color::FG_RED);
        grid.push(["aa", "b"]);
        assert_eq!(grid.draw(), "\x1b[31ma\x1b[39m  b\naa b\n");
    }
}
