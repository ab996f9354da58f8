//! A suite's `Packages` index: its stanzas, and the choice among them. Pure.

use super::version;

/// One package of a suite, with what is needed to fetch it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Package {
    /// Name of the binary package.
    pub name: String,
    /// Debian version.
    pub version: String,
    /// Path relative to the mirror's root.
    pub filename: String,
    /// Size of the .deb in bytes.
    pub size: u64,
    /// SHA-256 of the .deb, in hexadecimal.
    pub sha256: String,
}

/// All stanzas of an index whose package name `wanted` accepts; incomplete ones are left out.
pub fn parse(index: &str, wanted: impl Fn(&str) -> bool) -> Vec<Package> {
    index.split("\n\n").filter_map(|stanza| package(stanza, &wanted)).collect()
}

fn package(stanza: &str, wanted: impl Fn(&str) -> bool) -> Option<Package> {
    let field = |name: &str| {
        stanza
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(':').map(|value| value.trim().to_owned()))
    };
    let name = field("Package").filter(|name| wanted(name))?;
    Some(Package {
        name,
        version: field("Version")?,
        filename: field("Filename")?,
        size: field("Size")?.parse().ok()?,
        sha256: field("SHA256")?,
    })
}

/// The newest package.
pub fn newest(packages: impl IntoIterator<Item = Package>) -> Option<Package> {
    packages.into_iter().max_by(|one, other| version::compare(&one.version, &other.version))
}

#[cfg(test)]
mod tests {
    use super::*;

    const INDEX: &str = "\
Package: rust-src
Version: 1.95.0+dfsg1-2~bpo13+1
Filename: pool/main/r/rustc/rust-src_1.95.0.deb
Size: 45
SHA256: aa

Package: rust-src
Version: 1.96.1+dfsg1-2~bpo13+1
Filename: pool/main/r/rustc/rust-src_1.96.1.deb
Size: 46
Description: the
 source
SHA256: bb

Package: broken
Version: 1
";

    #[test]
    fn reads_complete_stanzas_only() {
        let all = parse(INDEX, |_| true);
        assert_eq!(all.iter().map(|package| package.size).collect::<Vec<_>>(), [45, 46]);
        assert_eq!(all[1].sha256, "bb");
        assert!(parse(INDEX, |name| name == "other").is_empty());
    }

    #[test]
    fn newest_goes_by_version() {
        assert_eq!(newest(parse(INDEX, |_| true)).unwrap().filename, "pool/main/r/rustc/rust-src_1.96.1.deb");
        assert_eq!(newest([]), None);
    }
}
