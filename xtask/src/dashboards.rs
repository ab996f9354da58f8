//! `cargo xtask dashboards`: Grafana's JSON from `dashboards/panels.toml`, which people can read and review, and the runbooks'
//! addresses in the alert rules, whose base stands there too. An alert is read far from this repository, in a mail or on a
//! phone, so its link has to be a whole address.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::build::workspace;

/// The alert rules and their unit tests, both of which have the runbooks' addresses.
const RULES: [&str; 2] = ["pinwatch.rules.yml", "pinwatch.rules.test.yml"];
/// What stands before an address.
const RUNBOOK: &str = "runbook_url:";
/// Columns of a dashboard.
const COLUMNS: u64 = 24;
/// The oldest schema that Grafana 9 and newer read as it is.
const SCHEMA: u64 = 37;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Source {
    /// The address under which `docs/runbooks/` can be read.
    runbooks: String,
    dashboard: Vec<Dashboard>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Dashboard {
    file: String,
    uid: String,
    title: String,
    description: String,
    /// Whether one machine is chosen, or all are shown.
    instances: Instances,
    row: Vec<Row>,
}

#[derive(Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Instances {
    All,
    One,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Row {
    title: String,
    panels: Vec<Panel>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Panel {
    title: String,
    kind: Kind,
    width: u64,
    unit: String,
    description: String,
    /// From this value on it is red.
    alert: Option<f64>,
    queries: Vec<Query>,
}

#[derive(Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Kind {
    Stat,
    Timeseries,
    Table,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Query {
    expr: String,
    legend: Option<String>,
}

/// Writes all dashboards and rules; with `check`, says whether they are as they would be written.
///
/// # Errors
/// When the source cannot be read, or is not what it should be.
pub fn make(check: bool) -> Result<u8> {
    let folder = workspace().join("dashboards");
    let mut stale = Vec::new();
    for (path, text) in all(&folder)? {
        if check {
            if fs::read_to_string(&path).unwrap_or_default() != text {
                stale.push(path.display().to_string());
            }
        } else {
            fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
            println!("{}", path.display());
        }
    }
    if !stale.is_empty() {
        eprintln!("xtask: not what panels.toml says: {}; run `cargo xtask dashboards`", stale.join(", "));
    }
    Ok(u8::from(!stale.is_empty()))
}

/// The files and what is to be in them.
fn all(folder: &Path) -> Result<Vec<(PathBuf, String)>> {
    let path = folder.join("panels.toml");
    let text = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
    let source: Source = toml::from_str(&text).with_context(|| path.display().to_string())?;
    let mut files = Vec::new();
    for dashboard in &source.dashboard {
        let json = serde_json::to_string_pretty(&of(dashboard)?)?;
        files.push((folder.join(&dashboard.file), format!("{json}\n")));
    }
    ensure!(source.runbooks.starts_with("https://"), "{}: runbooks is no https address", path.display());
    for name in RULES {
        let path = folder.join(name);
        let text = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        files.push((path, with_runbooks(&text, &source.runbooks)));
    }
    Ok(files)
}

/// The same rules with each runbook under `base`; what names the page is the last part of its address, as before.
fn with_runbooks(rules: &str, base: &str) -> String {
    let mut text = String::with_capacity(rules.len());
    for line in rules.lines() {
        match line.split_once(RUNBOOK) {
            Some((indent, address)) if indent.trim().is_empty() => {
                let page = address.trim().rsplit('/').next().unwrap_or_default();
                text += &format!("{indent}{RUNBOOK} {}/{page}\n", base.trim_end_matches('/'));
            }
            _ => {
                text += line;
                text.push('\n');
            }
        }
    }
    text
}

fn of(dashboard: &Dashboard) -> Result<Value> {
    let mut panels = Vec::new();
    let (mut id, mut y) = (0, 0);
    for row in &dashboard.row {
        id += 1;
        panels.push(json!({
            "id": id, "type": "row", "title": row.title, "collapsed": false, "panels": [],
            "gridPos": { "h": 1, "w": COLUMNS, "x": 0, "y": y },
        }));
        y += 1;
        let (mut x, mut height) = (0, 0);
        for panel in &row.panels {
            ensure!(panel.width <= COLUMNS, "{}: {} columns", panel.title, panel.width);
            if x + panel.width > COLUMNS {
                (x, y) = (0, y + height);
                height = 0;
            }
            let own = if panel.kind == Kind::Stat { 4 } else { 8 };
            height = height.max(own);
            id += 1;
            panels.push(panel_of(panel, id, json!({ "h": own, "w": panel.width, "x": x, "y": y })));
            x += panel.width;
        }
        y += height;
    }
    Ok(json!({
        "uid": dashboard.uid, "title": dashboard.title, "description": dashboard.description,
        "tags": ["pinwatch"], "schemaVersion": SCHEMA, "version": 1, "editable": true,
        "time": { "from": "now-6h", "to": "now" }, "refresh": "1m", "timezone": "",
        "templating": { "list": variables(dashboard.instances) },
        "annotations": { "list": [] }, "links": [], "panels": panels,
    }))
}

fn source() -> Value {
    json!({ "type": "prometheus", "uid": "${datasource}" })
}

fn variables(instances: Instances) -> Vec<Value> {
    let query = |name: &str, label: &str, query: &str, many: bool| {
        json!({
            "name": name, "label": label, "type": "query", "datasource": source(), "definition": query,
            "query": { "query": query, "refId": name }, "refresh": 2, "sort": 1,
            "multi": many, "includeAll": many, "allValue": if many { json!(".*") } else { Value::Null },
            "current": {}, "options": [], "hide": 0,
        })
    };
    let mut all = vec![
        json!({
            "name": "datasource", "label": "Prometheus", "type": "datasource", "query": "prometheus",
            "current": {}, "options": [], "hide": 0, "refresh": 1, "multi": false, "includeAll": false,
        }),
        query("job", "Job", "label_values(pinwatch_build_info, job)", true),
    ];
    let of_job = "label_values(pinwatch_build_info{job=~\"$job\"}, instance)";
    all.push(query("instance", "Machine", of_job, instances == Instances::All));
    all
}

fn panel_of(panel: &Panel, id: u64, place: Value) -> Value {
    let is_table = panel.kind == Kind::Table;
    let at_once = panel.kind != Kind::Timeseries;
    let targets: Vec<Value> = (panel.queries.iter().zip('A'..))
        .map(|(query, letter)| {
            json!({
                "refId": letter.to_string(), "datasource": source(), "expr": query.expr, "editorMode": "code",
                "legendFormat": query.legend.as_deref().unwrap_or("__auto"),
                "instant": at_once, "range": !at_once, "format": if is_table { "table" } else { "time_series" },
            })
        })
        .collect();
    let mut steps = vec![json!({ "color": "green", "value": null })];
    steps.extend(panel.alert.map(|value| json!({ "color": "red", "value": value })));
    let (kind, options) = match panel.kind {
        Kind::Stat => (
            "stat",
            json!({
                "reduceOptions": { "calcs": ["lastNotNull"], "fields": "", "values": false },
                "colorMode": "value", "graphMode": "none", "textMode": "auto",
            }),
        ),
        Kind::Timeseries => (
            "timeseries",
            json!({
                "legend": { "displayMode": "list", "placement": "bottom", "showLegend": true },
                "tooltip": { "mode": "multi", "sort": "desc" },
            }),
        ),
        Kind::Table => ("table", json!({ "showHeader": true })),
    };
    json!({
        "id": id, "type": kind, "title": panel.title, "description": panel.description,
        "datasource": source(), "gridPos": place, "targets": targets, "options": options,
        "fieldConfig": {
            "defaults": { "unit": panel.unit, "thresholds": { "mode": "absolute", "steps": steps } },
            "overrides": [],
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_dashboards_are_what_their_source_says() {
        let folder = workspace().join("dashboards");
        for (path, text) in all(&folder).unwrap() {
            assert_eq!(fs::read_to_string(&path).unwrap_or_default(), text, "run `cargo xtask dashboards`");
        }
    }

    #[test]
    fn a_runbook_moves_with_the_base_and_nothing_else_changes() {
        let rules =
            "  annotations:\n    summary: 'runbook_url: none'\n    runbook_url: old/place/UnheldPin.md\n";
        let moved = with_runbooks(rules, "https://a.example/pages/");
        assert_eq!(
            moved,
            "  annotations:\n    summary: 'runbook_url: none'\n    runbook_url: https://a.example/pages/UnheldPin.md\n"
        );
        assert_eq!(with_runbooks(&moved, "https://a.example/pages"), moved);
    }

    #[test]
    fn panels_do_not_overlap_and_have_all_that_a_reader_needs() {
        let dashboards = all(&workspace().join("dashboards")).unwrap();
        for (path, text) in
            dashboards.iter().filter(|(path, _)| path.extension().is_some_and(|it| it == "json"))
        {
            let dashboard: Value = serde_json::from_str(text).unwrap();
            let panels = dashboard["panels"].as_array().unwrap();
            let mut taken = std::collections::BTreeSet::new();
            for panel in panels {
                let number = |name: &str| panel["gridPos"][name].as_u64().unwrap();
                for (x, y) in (number("x")..number("x") + number("w"))
                    .flat_map(|x| (number("y")..number("y") + number("h")).map(move |y| (x, y)))
                {
                    assert!(x < COLUMNS && taken.insert((x, y)), "{}: {}", path.display(), panel["title"]);
                }
                if panel["type"] != "row" {
                    assert!(panel["description"].as_str().unwrap().len() > 5, "{}", panel["title"]);
                    assert!(!panel["targets"].as_array().unwrap().is_empty());
                }
            }
        }
    }
}
