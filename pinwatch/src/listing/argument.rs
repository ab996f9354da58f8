//! What is wrong with a value that the user gave to an option, worded for them. Values are understood where they belong
//! (columns, sort, select, explain, size); what is said about those that are not is only here.

use crate::model::CoverageState;

use super::escape;

/// A value that cannot be understood. It is printed escaped: it may hold anything.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ArgumentError {
    /// `-o` or `--sort`: no column has this name.
    #[error("no column \"{}\"; {}`lspins -H` lists them", escape::sentence(.name), meant(*.nearest))]
    NoColumn {
        /// As written.
        name: String,
        /// The column that is spelled almost like that.
        nearest: Option<&'static str>,
    },
    /// `-o` without any name.
    #[error("-o needs the name of a column; `lspins -H` lists them")]
    NoColumns,
    /// `--sort` with several names.
    #[error("--sort takes one column; `lspins -H` lists them")]
    SeveralColumns,
    /// `--explain`: not the form of an id.
    #[error("\"{}\" is not the id of a pin; `lspins -o +ID` shows them, as in u5b0", escape::sentence(.0))]
    NoId(String),
    /// `--type`: no type or subsystem has this name.
    #[error("no type \"{}\"; {}", escape::sentence(.name), match .nearest {
        Some(word) => format!("did you mean {word}?"),
        None => format!("there are {}", .all.join(", ")),
    })]
    NoType {
        /// As written.
        name: String,
        /// The type that is spelled almost like that.
        nearest: Option<&'static str>,
        /// All that there are.
        all: Vec<&'static str>,
    },
    /// `--coverage`: no such state.
    #[error("no coverage \"{}\"; there are {}", escape::sentence(.0), CoverageState::ALL.map(CoverageState::word).join(", "))]
    NoCoverage(String),
    /// `--min-size`: no size.
    #[error("\"{}\" is not a size; write a number of bytes, or as in 64K, 1.5G", escape::sentence(.0))]
    NoSize(String),
    /// `-p`: no process id.
    #[error("\"{}\" is not a process id; write numbers, as in -p 812,990", escape::sentence(.0))]
    NoPid(String),
}

fn meant(nearest: Option<&str>) -> String {
    nearest.map(|name| format!("did you mean {name}? ")).unwrap_or_default()
}
