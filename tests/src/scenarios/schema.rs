//! Whatever JSON a scenario gets from `lspins` is held against `pinwatch/schema/lspins-v1.schema.json` on its way: what runs
//! programs (`guest::shell`, `programs::output`, `Guest::table`, `Follower`) passes it through here.

use std::cell::OnceCell;
use std::collections::BTreeMap;

use anyhow::{Context, Result, anyhow, bail, ensure};
use jsonschema::Validator;
use serde_json::{Value, json};

const SCHEMA: &str = include_str!("../../../pinwatch/schema/lspins-v1.schema.json");
/// So many pins of a document are looked at: a table of thousands, asked for again and again, would take a guest minutes.
const MOST_PINS: usize = 200;
/// So many errors are reported.
const MOST_ERRORS: usize = 5;

/// What the schema calls a piece of JSON: the document of `-J`, or one of its `$defs`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum What {
    /// The whole document.
    Document,
    /// `$defs/NAME`, one for each line.
    Lines(&'static str),
    /// `$defs/NAME`, one document.
    One(&'static str),
}

/// What the command `words` prints as JSON; `None` if it is not `lspins` with `-J` or `-j`.
fn printed<'a>(words: impl IntoIterator<Item = &'a str>) -> Option<Result<What>> {
    let mut words = words.into_iter().map(|word| word.trim_matches(['\'', '"', '`', '(', ')']));
    words.find(|word| *word == "lspins")?;
    let end = |word: &&str| !matches!(*word, "|" | "||" | "&&" | ";" | "&");
    let options: Vec<&str> = words.take_while(end).map(|word| word.trim_end_matches(';')).collect();
    let has = |option: &str| options.contains(&option);
    let (whole, lines) = (has("-J"), has("-j"));
    let what = match (has("--leases"), has("--events"), has("--refused")) {
        _ if !whole && !lines => return None,
        _ if has("--summary") || has("--by") => Err(anyhow!("the schema has no totals yet: add them")),
        (true, ..) if whole => Ok(What::One("leases")),
        (true, ..) => Ok(What::Lines("lease")),
        (_, true, _) => Ok(What::Lines("event")),
        (.., true) => Ok(What::Lines("refusal")),
        _ if whole => Ok(What::Document),
        _ => Ok(What::Lines("pin")),
    };
    Some(what)
}

/// Checks what a command printed, if that is JSON of `lspins`. `text` may be empty: then it has failed, and says so itself.
pub fn check_command<'a>(words: impl IntoIterator<Item = &'a str>, text: &str) -> Result<()> {
    match printed(words) {
        Some(what) if !text.trim().is_empty() => check(what?, text),
        _ => Ok(()),
    }
}

/// Checks `text`.
pub fn check(what: What, text: &str) -> Result<()> {
    let parse = |text: &str| {
        serde_json::from_str::<Value>(text).with_context(|| format!("this is no JSON: {text:.300}"))
    };
    match what {
        What::Lines(_) => text.lines().try_for_each(|line| check_value(what, &parse(line)?)),
        What::Document | What::One(_) => check_value(what, &parse(text)?),
    }
}

/// Checks one document, or one line's value.
pub fn check_value(what: What, value: &Value) -> Result<()> {
    let thinned;
    let value = match value["pins"].as_array() {
        Some(pins) if what == What::Document && pins.len() > MOST_PINS => {
            let every = pins.len().div_ceil(MOST_PINS);
            let mut document = value.clone();
            document["pins"] = pins.iter().step_by(every).cloned().collect();
            thinned = document;
            &thinned
        }
        _ => value,
    };
    SCHEMAS.with(|schemas| {
        let schemas = schemas.get_or_init(|| Schemas::new().map_err(|error| format!("{error:#}")));
        match schemas {
            Ok(schemas) => schemas.check(what, value),
            Err(error) => bail!("{error}"),
        }
    })
}

thread_local! {
    /// Made once: compiling it takes longer than using it.
    static SCHEMAS: OnceCell<Result<Schemas, String>> = const { OnceCell::new() };
}

/// One validator for the document and for each of the definitions that are printed by themselves.
struct Schemas(BTreeMap<What, Validator>);

impl Schemas {
    fn new() -> Result<Self> {
        let schema: Value = serde_json::from_str(SCHEMA).context("the schema is no JSON")?;
        let mut all = BTreeMap::from([(What::Document, compile(&schema)?)]);
        for name in ["pin", "leases", "lease", "event", "refusal"] {
            ensure!(!schema["$defs"][name].is_null(), "the schema has no $defs/{name}");
            let part = json!({
                "$schema": schema["$schema"],
                "$ref": format!("#/$defs/{name}"),
                "$defs": schema["$defs"],
            });
            let what = if name == "leases" { What::One(name) } else { What::Lines(name) };
            all.insert(what, compile(&part)?);
        }
        Ok(Self(all))
    }

    fn check(&self, what: What, value: &Value) -> Result<()> {
        let validator = self.0.get(&what).with_context(|| format!("nothing in the schema is {what:?}"))?;
        let errors: Vec<String> = validator
            .iter_errors(value)
            .take(MOST_ERRORS)
            .map(|error| format!("{}: {error:.300}", error.instance_path()))
            .collect();
        ensure!(errors.is_empty(), "not as the schema has it ({what:?}):\n{}", errors.join("\n"));
        Ok(())
    }
}

fn compile(schema: &Value) -> Result<Validator> {
    let options = jsonschema::draft202012::options().should_validate_formats(true);
    options.build(schema).map_err(|error| anyhow!("the schema itself is wrong: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn what(command: &str) -> Option<What> {
        printed(command.split_whitespace()).map(|what| what.unwrap())
    }

    #[test]
    fn what_a_command_prints_goes_by_its_options() {
        assert_eq!(what("lspins -J"), Some(What::Document));
        assert_eq!(what("unshare -m sh -c 'mount -t proc proc /proc && lspins -J'"), Some(What::Document));
        assert_eq!(what("setpriv --reuid 1 lspins --leases -J /srv"), Some(What::One("leases")));
        assert_eq!(what("lspins --events --follow -j /srv"), Some(What::Lines("event")));
        assert_eq!(what("lspins --refused -j"), Some(What::Lines("refusal")));
        assert_eq!(what("lspins -j"), Some(What::Lines("pin")));
        assert_eq!(what("lspins --explain u1"), None);
        assert_eq!(what("pinwatch check -J"), None);
        assert_eq!(what("lspins | grep -J"), None);
        assert!(printed(["lspins", "--summary", "-J"]).unwrap().is_err());
    }

    #[test]
    fn a_document_with_a_wrong_or_missing_field_is_refused() {
        let good = json!({
            "version": 1, "complete": true, "complete_since": null, "watching_since": null, "incomplete": [],
            "gaps": [], "unattributed_pages": null, "kernel": null, "hidden": {"pins": 0, "bytes": 0}, "pins": []
        });
        check(What::Document, &good.to_string()).unwrap();
        for (field, value) in [
            ("version", json!(2)),
            ("watching_since", json!("yesterday")),
            ("incomplete", json!([1])),
            ("pins", json!([{"id": "r1"}])),
        ] {
            let mut bad = good.clone();
            bad[field] = value;
            assert!(check_value(What::Document, &bad).is_err(), "{field}");
        }
        let mut bad = good;
        bad.as_object_mut().unwrap().remove("hidden");
        assert!(check_value(What::Document, &bad).is_err());
        assert!(check(What::Document, "{").is_err());
    }

    #[test]
    fn each_line_is_checked() {
        let error = check(What::Lines("pin"), "{\"id\": 7}\n").unwrap_err();
        assert!(format!("{error:#}").contains("Lines(\"pin\")"), "{error:#}");
        assert!(check_command(["lspins", "-j"], "{\"id\": 7}\n").is_err());
        assert!(check_command(["lspins", "-j"], "").is_ok());
        assert!(check_command(["lspins"], "COMMAND PID\n").is_ok());
    }

    /// A scenario that starts lspins by itself would not be checked: only these files may.
    #[test]
    fn lspins_is_started_only_where_its_json_is_checked() {
        let mut waiting =
            vec![std::path::PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/src/scenarios"))];
        let mut found = Vec::new();
        while let Some(path) = waiting.pop() {
            if path.is_dir() {
                waiting.extend(std::fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
            } else if std::fs::read_to_string(&path).unwrap().contains(concat!("Command::new(\"", "lspins")) {
                found.push(path.file_name().unwrap().to_string_lossy().into_owned());
            }
        }
        found.sort();
        assert_eq!(found, ["guest.rs", "lease_events.rs"]);
    }
}
