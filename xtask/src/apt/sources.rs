//! Which Debian archives this machine's apt uses: `sources.list` and `sources.list.d`, in the one-line and the deb822
//! format. The parsing is pure; [`Mirrors::of_this_machine`] reads the files.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result, bail};

const DEBIAN_KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// One line of the machine's sources: an archive with the suites and components taken from it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    /// Root of the archive.
    pub uri: String,
    /// Suites, as written.
    pub suites: Vec<String>,
    /// Components, as written.
    pub components: Vec<String>,
    /// The key ring named for it, when that is a path.
    pub signed_by: Option<String>,
}

/// One Debian archive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Archive {
    /// Root of the archive, without a slash at its end.
    pub uri: String,
    /// Path of the key ring that signs it.
    pub keyring: String,
}

/// The Debian archives this machine uses, and its release.
#[derive(Debug, Clone)]
pub struct Mirrors {
    /// Code name of this machine's Debian release, e.g. `bookworm`.
    pub codename: String,
    /// The main archive; backports and newer releases are in it too.
    pub main: Archive,
    /// The security archive, when the machine's apt has one.
    pub security: Option<Archive>,
}

impl Mirrors {
    /// Reads the release and the apt sources of this machine.
    ///
    /// # Errors
    /// When it is no Debian, or no source of Debian's main archive is set up.
    pub fn of_this_machine() -> Result<Self> {
        let release = fs::read_to_string("/etc/os-release").context("cannot read /etc/os-release")?;
        let Some(codename) = os_release(&release, "VERSION_CODENAME") else {
            bail!("/etc/os-release names no release: this needs a Debian machine");
        };
        if os_release(&release, "ID").as_deref() != Some("debian") {
            bail!(
                "this machine is not a Debian: set-up and virtual machines take their packages from Debian's archive"
            );
        }
        Self::choose(&read_sources(Path::new("/etc/apt")), &codename)
    }

    fn choose(sources: &[Source], codename: &str) -> Result<Self> {
        let release = [codename.to_owned(), "stable".to_owned(), "oldstable".to_owned()];
        let security: Vec<String> =
            release.iter().flat_map(|name| [format!("{name}-security"), format!("{name}/updates")]).collect();
        let Some(main) = pick(sources, &release) else {
            bail!(
                "no Debian mirror found: neither /etc/apt/sources.list nor a file in /etc/apt/sources.list.d has \
                 {codename} main"
            );
        };
        Ok(Self { codename: codename.to_owned(), main, security: pick(sources, &security) })
    }

    /// The archive that a lock file calls `main` or `security`.
    ///
    /// # Errors
    /// When the machine's apt has no such archive.
    pub fn archive(&self, name: &str) -> Result<&Archive> {
        match (name, &self.security) {
            ("main", _) => Ok(&self.main),
            ("security", Some(archive)) => Ok(archive),
            ("security", None) => bail!(
                "this machine's apt has no security archive: add {}-security to its sources, kernels come from there",
                self.codename
            ),
            _ => bail!("unknown archive \"{name}\": there are main and security"),
        }
    }
}

/// Third-party archives also use a release's code name as suite: one with Debian's key ring or a path named
/// `debian` goes first.
fn pick(sources: &[Source], suites: &[String]) -> Option<Archive> {
    let fits = |source: &&Source| {
        source.suites.iter().any(|suite| suites.contains(suite))
            && source.components.iter().any(|c| c == "main")
    };
    let official = |source: &&Source| {
        source.signed_by.as_deref() == Some(DEBIAN_KEYRING)
            || source
                .uri
                .trim_end_matches('/')
                .rsplit('/')
                .next()
                .is_some_and(|last| last.starts_with("debian"))
    };
    let found = sources.iter().filter(fits).find(official).or_else(|| sources.iter().find(fits))?;
    Some(Archive {
        uri: found.uri.trim_end_matches('/').to_owned(),
        keyring: found.signed_by.clone().unwrap_or_else(|| DEBIAN_KEYRING.to_owned()),
    })
}

fn read_sources(etc_apt: &Path) -> Vec<Source> {
    let mut sources = Vec::new();
    if let Ok(text) = fs::read_to_string(etc_apt.join("sources.list")) {
        sources.extend(parse_one_line(&text));
    }
    let Ok(entries) = fs::read_dir(etc_apt.join("sources.list.d")) else { return sources };
    let mut files: Vec<_> = entries.flatten().map(|entry| entry.path()).collect();
    files.sort();
    for file in files {
        let Ok(text) = fs::read_to_string(&file) else { continue };
        match file.extension().and_then(|extension| extension.to_str()) {
            Some("list") => sources.extend(parse_one_line(&text)),
            Some("sources") => sources.extend(parse_deb822(&text)),
            _ => {}
        }
    }
    sources
}

fn os_release(text: &str, key: &str) -> Option<String> {
    text.lines()
        .find_map(|line| Some(line.strip_prefix(key)?.strip_prefix('=')?.trim_matches('"').to_owned()))
}

/// `deb [option=value ...] uri suite component...` lines; other lines are skipped.
pub fn parse_one_line(text: &str) -> Vec<Source> {
    text.lines().filter_map(one_line).collect()
}

fn one_line(line: &str) -> Option<Source> {
    let line = line.split('#').next()?.trim();
    let mut rest = line.strip_prefix("deb")?.strip_prefix([' ', '\t'])?.trim_start();
    let mut signed_by = None;
    if let Some(after) = rest.strip_prefix('[') {
        let (options, after) = after.split_once(']')?;
        signed_by = options
            .split_whitespace()
            .find_map(|option| option.strip_prefix("signed-by="))
            .and_then(key_path);
        rest = after;
    }
    let mut words = rest.split_whitespace().map(str::to_owned);
    let (uri, suite) = (words.next()?, words.next()?);
    Some(Source { uri, suites: vec![suite], components: words.collect(), signed_by })
}

/// Stanzas of a `.sources` file; disabled ones and those for source packages only are skipped.
pub fn parse_deb822(text: &str) -> Vec<Source> {
    let mut sources = Vec::new();
    for stanza in stanzas(text) {
        let field = |name: &str| {
            let found = stanza.iter().find(|(key, _)| key.eq_ignore_ascii_case(name));
            found.map(|(_, value)| value.as_str()).unwrap_or_default()
        };
        let words = |name: &str| field(name).split_whitespace().map(str::to_owned).collect::<Vec<_>>();
        if !words("Types").contains(&"deb".to_owned())
            || ["no", "false", "0"].contains(&field("Enabled").trim())
        {
            continue;
        }
        for uri in words("URIs") {
            let signed_by = key_path(field("Signed-By").trim());
            sources.push(Source { uri, suites: words("Suites"), components: words("Components"), signed_by });
        }
    }
    sources
}

fn stanzas(text: &str) -> Vec<Vec<(String, String)>> {
    let mut all: Vec<Vec<(String, String)>> = vec![Vec::new()];
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        if line.trim().is_empty() {
            all.push(Vec::new());
        } else if line.starts_with([' ', '\t']) {
            if let Some((_, value)) = all.last_mut().and_then(|stanza| stanza.last_mut()) {
                value.push('\n');
                value.push_str(line.trim());
            }
        } else if let (Some((key, value)), Some(stanza)) = (line.split_once(':'), all.last_mut()) {
            stanza.push((key.trim().to_owned(), value.trim().to_owned()));
        }
    }
    all
}

/// A key ring's path; a key written into the file itself is not used.
fn key_path(value: &str) -> Option<String> {
    value.starts_with('/').then(|| value.split(',').next().unwrap_or(value).to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEB822: &str = "\
Types: deb deb-src
# a comment
URIs: http://mirror.example/debian/
Suites: bookworm
 bookworm-updates
Components: main
Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg

Types: deb
URIs: http://mirror.example/debian-security
Suites: bookworm-security
Components: main
Enabled: yes

Types: deb
URIs: http://off.example/debian
Suites: bookworm
Components: main
Enabled: no
";

    #[test]
    fn deb822_gives_both_archives() {
        let mirrors = Mirrors::choose(&parse_deb822(DEB822), "bookworm").unwrap();
        assert_eq!(mirrors.main.uri, "http://mirror.example/debian");
        assert_eq!(mirrors.main.keyring, DEBIAN_KEYRING);
        assert_eq!(mirrors.archive("security").unwrap().uri, "http://mirror.example/debian-security");
        assert_eq!(parse_deb822(DEB822)[0].suites, ["bookworm", "bookworm-updates"]);
    }

    #[test]
    fn one_line_format_with_options_and_comments() {
        let text = "# deb http://no/ a b\ndeb-src http://s/ bookworm main\n\
                    deb [arch=amd64 signed-by=/k.gpg] http://m/debian/ bookworm main contrib # note\n";
        let sources = parse_one_line(text);
        assert_eq!(sources.len(), 1);
        assert_eq!(sources[0].components, ["main", "contrib"]);
        assert_eq!(sources[0].signed_by.as_deref(), Some("/k.gpg"));
        let mirrors = Mirrors::choose(&sources, "bookworm").unwrap();
        assert!(mirrors.archive("security").unwrap_err().to_string().contains("no security archive"));
    }

    #[test]
    fn a_third_party_archive_of_the_same_suite_is_not_taken() {
        let text = "deb http://tool.example/apt bookworm main\ndeb http://m.example/debian bookworm main\n";
        assert_eq!(
            Mirrors::choose(&parse_one_line(text), "bookworm").unwrap().main.uri,
            "http://m.example/debian"
        );
    }

    #[test]
    fn no_mirror_is_a_sentence() {
        let error = Mirrors::choose(&[], "bookworm").unwrap_err().to_string();
        assert!(error.starts_with("no Debian mirror found"), "{error}");
    }
}
