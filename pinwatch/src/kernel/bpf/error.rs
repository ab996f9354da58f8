//! What can go wrong between user space and the kernel's BPF side. Causes are kept as they came; how they read is decided
//! here and nowhere else.

use std::sync::Arc;
use std::{fmt, io};

use aya::maps::MapError;
use aya::programs::ProgramError;
use aya::programs::links::LinkError;
use aya::{BtfError, EbpfError};

use crate::kernel::overlay::OverlayError;

/// What could not be done.
#[derive(Debug, thiserror::Error)]
pub enum BpfError {
    /// The object does not load at all.
    #[error("cannot load the BPF programs: {0}")]
    Load(Cause),
    /// One hook cannot be attached.
    #[error("cannot attach to {symbol}: {cause}")]
    Attach {
        /// The kernel function.
        symbol: &'static str,
        /// Why.
        cause: Cause,
    },
    /// A program that looks at the kernel does not run.
    #[error("cannot run the BPF program over {over}: {cause}")]
    Iterate {
        /// Over what.
        over: &'static str,
        /// Why.
        cause: Cause,
    },
    /// A map cannot be read or written.
    #[error("cannot use the BPF map {map}: {cause}")]
    Map {
        /// The map's name.
        map: &'static str,
        /// Why.
        cause: Cause,
    },
}

/// Why.
#[derive(Debug)]
pub enum Cause {
    /// The BPF object has no program of this name: it is of another build.
    NoProgram(String),
    /// The BPF object has no such map.
    NoMap,
    /// The hook is on a function of a module, and the plan has no BTF of it.
    NotInModuleBtf,
    /// A program.
    Program(Box<ProgramError>),
    /// BTF.
    Btf(Box<BtfError>),
    /// The whole object.
    Object(Box<EbpfError>),
    /// A map.
    Map(Box<MapError>),
    /// A link.
    Link(Box<LinkError>),
    /// The system.
    System(io::Error),
}

/// Why it is not known which files are below one of overlayfs.
#[derive(Debug, thiserror::Error)]
pub enum BelowError {
    /// It is not known where overlayfs keeps them.
    #[error(transparent)]
    Layout(#[from] Arc<OverlayError>),
    /// The kernel does not answer.
    #[error(transparent)]
    Bpf(#[from] BpfError),
    /// The file was closed before it was looked at.
    #[error("the file was closed meanwhile")]
    Closed,
}

macro_rules! causes {
    ($($error:ident => $variant:ident),+ $(,)?) => {
        $(impl From<$error> for Cause {
            fn from(error: $error) -> Self {
                Self::$variant(Box::new(error))
            }
        })+
    };
}

causes!(ProgramError => Program, BtfError => Btf, EbpfError => Object, MapError => Map, LinkError => Link);

impl From<io::Error> for Cause {
    fn from(error: io::Error) -> Self {
        Self::System(error)
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoProgram(name) => write!(f, "the BPF object has no program {name}; build pinwatch anew"),
            Self::NoMap => f.write_str("the BPF object has no such map; build pinwatch anew"),
            Self::NotInModuleBtf => f.write_str("the module's BTF does not have the function"),
            Self::Program(error) => f.write_str(&one_line(error.as_ref())),
            Self::Btf(error) => f.write_str(&one_line(error.as_ref())),
            Self::Object(error) => f.write_str(&one_line(error.as_ref())),
            Self::Map(error) => f.write_str(&one_line(error.as_ref())),
            Self::Link(error) => f.write_str(&one_line(error.as_ref())),
            Self::System(error) => f.write_str(&one_line(error)),
        }
    }
}

/// An error with its causes in one line. Of the verifier's log, which has thousands of lines, the first and the last ones
/// are kept: the call that failed, and why.
fn one_line(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let more = error.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        cause = error.source();
    }
    let statistics = ["processed ", "subprog ", "verification time ", "stack depth ", "insns processed "];
    let is_informative =
        |line: &&str| !line.trim().is_empty() && !statistics.iter().any(|word| line.starts_with(word));
    let lines: Vec<&str> = text.lines().filter(is_informative).collect();
    let last = lines.len().saturating_sub(3).max(1);
    lines.iter().take(1).chain(&lines[last..]).copied().collect::<Vec<_>>().join(" / ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_verifiers_log_becomes_one_line() {
        let log = "load failed\n0: r1 = r2\n1: call 5\n\nR1 type=scalar expected=fp\nprocessed 2 insns\nstack depth 8";
        let cause = Cause::from(io::Error::other(log));
        assert_eq!(cause.to_string(), "load failed / 0: r1 = r2 / 1: call 5 / R1 type=scalar expected=fp");
        let error = BpfError::Attach { symbol: "f", cause: Cause::NoProgram("p".to_owned()) };
        assert!(error.to_string().starts_with("cannot attach to f: the BPF object has no program p"));
    }
}
