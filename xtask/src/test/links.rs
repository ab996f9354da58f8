//! Do the documents' links lead anywhere? A unit test, as it costs milliseconds: every relative link in a Markdown file of this
//! repository names a file that there is, and a heading in it; every page that a comment cites is there. Addresses on the net are
//! not asked for.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use crate::build::workspace;

/// Folders that are not the repository's text.
const LEFT_OUT: [&str; 3] = ["target", ".git", "fixtures"];

/// All files below `folder` with one of the extensions.
fn files(folder: &Path, extensions: &[&str], found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap().map(Result::unwrap) {
        let (path, name) = (entry.path(), entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            if !LEFT_OUT.iter().any(|left_out| name == *left_out) {
                files(&path, extensions, found);
            }
        } else if path.extension().is_some_and(|is| extensions.iter().any(|extension| is == *extension)) {
            found.push(path);
        }
    }
}

/// The lines that are text: neither in a fence nor indented as code.
fn prose(text: &str) -> impl Iterator<Item = &str> {
    let mut fenced = false;
    text.lines().filter(move |line| {
        fenced ^= line.trim_start().starts_with("```");
        !fenced && !line.starts_with("    ")
    })
}

/// What stands in the round brackets of `[...](...)`.
fn links(line: &str) -> impl Iterator<Item = &str> {
    line.split("](").skip(1).filter_map(|rest| rest.split(')').next())
}

/// The anchors of a page's headings, as forges make them.
fn anchors(text: &str) -> BTreeSet<String> {
    let headings = prose(text).filter(|line| line.starts_with('#'));
    let anchor = |heading: &str| {
        let heading = heading.trim_start_matches('#').trim().to_lowercase();
        let kept = heading.chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
        kept.map(|c| if c == ' ' { '-' } else { c }).collect()
    };
    headings.map(anchor).collect()
}

#[test]
fn links_lead_somewhere() {
    let mut pages = Vec::new();
    files(workspace(), &["md"], &mut pages);
    assert!(pages.len() > 20, "{pages:?}");
    let mut dead = Vec::new();
    for page in &pages {
        let text = fs::read_to_string(page).unwrap();
        for link in prose(&text).flat_map(links).filter(|link| !link.contains("://")) {
            let (path, anchor) = link.split_once('#').unwrap_or((link, ""));
            let target = if path.is_empty() { page.clone() } else { page.parent().unwrap().join(path) };
            let has_anchor =
                || anchors(&fs::read_to_string(&target).unwrap_or_default()).contains(&anchor.to_lowercase());
            if !target.exists() || !(anchor.is_empty() || has_anchor()) {
                dead.push(format!("{}: {link}", page.display()));
            }
        }
    }
    assert!(dead.is_empty(), "links that lead nowhere:\n{}", dead.join("\n"));
}

#[test]
fn what_comments_cite_is_there() {
    let mut sources = Vec::new();
    files(workspace(), &["rs", "toml", "sh", "yml", "yaml", "service"], &mut sources);
    let mut dead = Vec::new();
    for source in &sources {
        let text = fs::read_to_string(source).unwrap();
        let cited = text.split(|c: char| !(c.is_alphanumeric() || "/-_.".contains(c)));
        for page in cited.filter(|word| word.starts_with("docs/") && word.ends_with(".md")) {
            if !workspace().join(page).exists() {
                dead.push(format!("{}: {page}", source.display()));
            }
        }
    }
    assert!(dead.is_empty(), "pages that are cited and not there:\n{}", dead.join("\n"));
}

#[test]
fn links_and_anchors_are_found() {
    let found: Vec<&str> = links("see [a](b.md#c) and [d](https://e.example), not (f)").collect();
    assert_eq!(found, ["b.md#c", "https://e.example"]);
    let text = "# One table, one room\n```\n# no\n```\n    # nor this\n## `x` and y\n";
    assert_eq!(anchors(text), BTreeSet::from(["one-table-one-room".to_owned(), "x-and-y".to_owned()]));
}
