//! `--sort`: the rows in the order of a column.

use super::Row;
use super::argument::ArgumentError;
use super::columns::{self, Column, Context, age_seconds};

/// A column to sort by.
#[derive(Clone, Copy, Debug)]
pub struct Sort {
    column: &'static Column,
    backwards: bool,
}

/// What a cell is worth when compared; what is not known comes last.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
enum Key {
    Number(u64),
    Text(String),
    Unknown,
}

impl Sort {
    /// Reads a column's name, with `-` in front for the other way round.
    ///
    /// # Errors
    /// As for [`columns::choose`], and [`ArgumentError::SeveralColumns`].
    pub fn parse(written: &str) -> Result<Self, ArgumentError> {
        let (name, backwards) = match written.strip_prefix('-') {
            Some(name) => (name, true),
            None => (written, false),
        };
        match columns::choose(Some(name.trim_start_matches('+')))?[..] {
            [column] => Ok(Self { column, backwards }),
            _ => Err(ArgumentError::SeveralColumns),
        }
    }

    /// Sorts rows; those that are equal keep their order.
    pub fn apply(self, rows: &mut [Row<'_>], context: &Context) {
        // Sizes as they are, not as people read them.
        let context = Context { bytes: true, ..*context };
        rows.sort_by_cached_key(|row| self.key(row, &context));
        if self.backwards {
            let known = rows.partition_point(|row| self.key(row, &context) != Key::Unknown);
            rows[..known].reverse();
        }
    }

    fn key(self, row: &Row, context: &Context) -> Key {
        if self.column.name == "AGE" {
            return age_seconds(row.pin.created, context.now).map_or(Key::Unknown, Key::Number);
        }
        let text = (self.column.cell)(row, context);
        if !self.column.right {
            return if text == "?" { Key::Unknown } else { Key::Text(text) };
        }
        // A number may have a remark behind it.
        let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
        text[..end].parse().map_or(Key::Unknown, Key::Number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::listing::sample;
    use crate::listing::select::Selection;
    use crate::model::LeasePolicy;

    fn sorted(by: &str) -> Vec<String> {
        let table = sample::table();
        let mut rows = Selection::default().rows(&table);
        let context =
            Context { now: sample::CREATED + 12_000_000_000, bytes: false, policy: LeasePolicy::Persistent };
        Sort::parse(by).unwrap().apply(&mut rows, &context);
        rows.iter().map(|row| row.pin.id.to_string()).collect()
    }

    #[test]
    fn by_number_text_and_age() {
        assert_eq!(sorted("pid"), ["r1", "u2", "u2", "x3"]);
        assert_eq!(sorted("-pid"), ["x3", "u2", "u2", "r1"]);
        assert_eq!(sorted("size"), ["u2", "x3", "u2", "r1"]);
        assert_eq!(sorted("-SIZE"), ["r1", "u2", "x3", "u2"]);
        assert_eq!(sorted("command"), ["r1", "x3", "u2", "u2"]);
        assert_eq!(sorted("age").last().unwrap(), "x3");
        assert_eq!(sorted("-age").last().unwrap(), "x3");
    }

    #[test]
    fn what_is_no_column() {
        assert!(Sort::parse("szie").unwrap_err().to_string().contains("did you mean SIZE?"));
        assert!(Sort::parse("pid,name").unwrap_err() == ArgumentError::SeveralColumns);
        assert!(Sort::parse("").is_err() && Sort::parse("-").is_err());
    }
}
