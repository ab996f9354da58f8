//! What many pins have in common, as JSON: written once, put in wherever it belongs.

use std::cell::RefCell;

use super::writer::Ready;
use super::{File, pin, process};
use crate::model::{self, Pin, Table};

/// What many pins of a table have in common.
pub struct Shared {
    files: Vec<Ready>,
    creators: Vec<Ready>,
    /// Four fields each.
    holdings: Vec<Ready>,
    /// How a pin is kept of which nobody knows.
    unknown: Ready,
    /// The latest second, as text without its end.
    second: RefCell<(i64, String)>,
    /// The latest verdict, and its text.
    coverage: RefCell<(model::Coverage, Vec<u8>)>,
}

impl Shared {
    /// Writes what there is.
    pub fn new(table: &Table) -> serde_json::Result<Self> {
        let file = |file| Ready::of_serde(&File::new(file));
        Ok(Self {
            files: table.files.iter().map(file).collect::<Result<_, _>>()?,
            creators: table.processes.iter().map(process::creator).collect(),
            holdings: table.holdings.iter().map(|holding| process::held(table, Some(holding))).collect(),
            unknown: process::held(table, None),
            second: RefCell::default(),
            coverage: RefCell::default(),
        })
    }

    /// The file of a part.
    pub fn file(&self, part: &model::Part) -> Option<&Ready> {
        self.files.get(part.file?.0 as usize)
    }

    /// A process that made a pin.
    pub fn creator(&self, process: model::ProcessIndex) -> Option<&Ready> {
        self.creators.get(process.0 as usize)
    }

    /// How a pin is kept, as four fields.
    pub fn holding(&self, pin: &Pin) -> &Ready {
        let at = pin.holding.map(|at| at.0 as usize);
        at.and_then(|at| self.holdings.get(at)).unwrap_or(&self.unknown)
    }

    /// Appends the verdict on a pin's leases: its neighbours mostly have the same.
    pub fn coverage(&self, out: &mut Vec<u8>, coverage: &model::Coverage) {
        let mut latest = self.coverage.borrow_mut();
        if latest.1.is_empty() || latest.0 != *coverage {
            latest.1.clear();
            pin::coverage(&mut latest.1, coverage);
            latest.0 = coverage.clone();
        }
        out.extend_from_slice(&latest.1);
    }

    /// Appends a moment as RFC 3339; null if it is not known, or beyond what the calendar has.
    pub fn time(&self, out: &mut Vec<u8>, nanoseconds: Option<i64>) {
        let start = out.len();
        out.push(b'"');
        match nanoseconds.and_then(|nanoseconds| self.digits(out, nanoseconds)) {
            Some(()) => out.extend_from_slice(b"Z\""),
            None => {
                out.truncate(start);
                out.extend_from_slice(b"null");
            }
        }
    }

    /// Appends it up to its last digit; `None` if it is beyond what the calendar has.
    fn digits(&self, out: &mut Vec<u8>, nanoseconds: i64) -> Option<()> {
        let (second, mut rest) =
            (nanoseconds.div_euclid(1_000_000_000), nanoseconds.rem_euclid(1_000_000_000));
        let mut latest = self.second.borrow_mut();
        if latest.0 != second || latest.1.is_empty() {
            let time = jiff::Timestamp::from_second(second).ok()?;
            *latest = (second, time.to_string().trim_end_matches('Z').to_owned());
        }
        out.extend_from_slice(latest.1.as_bytes());
        if rest != 0 {
            let mut digits = *b".000000000";
            for digit in digits[1..].iter_mut().rev() {
                *digit += (rest % 10) as u8;
                rest /= 10;
            }
            let end = digits.iter().rposition(|digit| *digit != b'0').map_or(0, |last| last + 1);
            out.extend_from_slice(&digits[..end]);
        }
        Some(())
    }
}
