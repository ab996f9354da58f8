//! The gaps of a table from `lspins -J`, by their codes. No scenario matches a sentence: they are for people, and change.

use serde_json::Value;

/// The gaps with a code; there may be one for each subsystem.
pub fn all<'a>(table: &'a Value, code: &'a str) -> impl Iterator<Item = &'a Value> {
    table["gaps"].as_array().into_iter().flatten().filter(move |gap| gap["code"] == code)
}

/// Whether a gap with a code is open.
pub fn is_open(table: &Value, code: &str) -> bool {
    all(table, code).next().is_some()
}

/// What the gaps with a code count; 0 if none is open.
pub fn count(table: &Value, code: &str) -> u64 {
    all(table, code).filter_map(|gap| gap["count"].as_u64()).sum()
}
