//! Which kernels there are, at which exact version (the lock file), and how a newer one is found.

pub mod lock;
pub mod resolve;

use anyhow::{Result, bail};

use crate::apt::private::Suite;

/// A kernel that can be asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Kernel {
    /// What a user calls it, e.g. `6.1`.
    pub key: &'static str,
    /// Where Debian has it.
    pub suite: Suite,
    /// What it was built with, and modules for it have to be.
    pub compiler: Compiler,
}

/// A Debian package of a compiler.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Compiler {
    /// Code name of the release that it is of.
    pub release: &'static str,
    /// Name of the package.
    pub gcc: &'static str,
}

const BOOKWORM: Compiler = Compiler { release: "bookworm", gcc: "gcc-12" };
const TRIXIE: Compiler = Compiler { release: "trixie", gcc: "gcc-14" };

/// All of them, oldest first.
pub const KERNELS: &[Kernel] = &[
    Kernel {
        key: "6.1",
        suite: Suite { archive: "security", name: "bookworm-security" },
        compiler: BOOKWORM,
    },
    Kernel { key: "6.12", suite: Suite { archive: "main", name: "trixie" }, compiler: TRIXIE },
    Kernel { key: "6.18", suite: BACKPORTS, compiler: TRIXIE },
    Kernel { key: "7.2", suite: BACKPORTS, compiler: TRIXIE },
    Kernel { key: "7.3", suite: BACKPORTS, compiler: TRIXIE },
];

const BACKPORTS: Suite = Suite { archive: "main", name: "trixie-backports" };

/// `linux-image` and `6.12.95+deb12-amd64` of `linux-image-6.12.95+deb12-amd64`; what has no release is a kind.
fn split_name(package: &str) -> (&str, &str) {
    let release = |at: &usize| package[at + 1..].starts_with(|c: char| c.is_ascii_digit());
    match package.match_indices('-').map(|(at, _)| at).find(release) {
        Some(at) => (&package[..at], &package[at + 1..]),
        None => (package, ""),
    }
}

/// The oldest of them.
pub fn oldest() -> &'static Kernel {
    &KERNELS[0]
}

/// The newest of them.
pub fn newest() -> &'static Kernel {
    &KERNELS[KERNELS.len() - 1]
}

/// The kernel called `key`.
///
/// # Errors
/// When there is none, with those that there are.
pub fn find(key: &str) -> Result<&'static Kernel> {
    match KERNELS.iter().find(|kernel| kernel.key == key) {
        Some(kernel) => Ok(kernel),
        None => {
            let keys: Vec<&str> = KERNELS.iter().map(|kernel| kernel.key).collect();
            bail!("no kernel \"{key}\"; there are {}", keys.join(", "))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::split_name;

    #[test]
    fn a_packages_name_is_its_kind_and_its_release() {
        assert_eq!(split_name("linux-image-6.12.95+deb12-amd64"), ("linux-image", "6.12.95+deb12-amd64"));
        assert_eq!(split_name("linux-binary-unsigned-7.3.4").0, "linux-binary-unsigned");
        assert_eq!(split_name("linux-base"), ("linux-base", ""));
    }

    #[test]
    fn an_unknown_kernel_is_answered_with_those_there_are() {
        let error = super::find("9.9").unwrap_err().to_string();
        assert_eq!(error, "no kernel \"9.9\"; there are 6.1, 6.12, 6.18, 7.2, 7.3");
    }
}
