//! As much of JSON Schema as the schema of `lspins` uses, to hold real output against it.

use pinwatch::model::{Doubt, GapCode};
use serde_json::Value;

/// The schema that is shipped.
pub fn schema() -> Value {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/schema/lspins-v1.schema.json");
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

/// Where a value breaks the schema; empty if it does not. Fields that the schema does not know are reported too.
pub fn faults(root: &Value, schema: &Value, value: &Value, at: &str) -> Vec<String> {
    if let Some(name) = schema["$ref"].as_str() {
        let target = root.pointer(name.strip_prefix('#').unwrap()).unwrap();
        return faults(root, target, value, at);
    }
    let mut found = Vec::new();
    let mut wrong = |what: String| found.push(format!("{at}: {what}"));
    let types: Vec<&str> = match &schema["type"] {
        Value::String(one) => vec![one],
        Value::Array(all) => all.iter().filter_map(Value::as_str).collect(),
        _ => Vec::new(),
    };
    let is = match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        // An integer is a number, too.
        Value::Number(n) if (n.is_u64() || n.is_i64()) && types.contains(&"integer") => "integer",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    };
    if !types.is_empty() && !types.contains(&is) {
        wrong(format!("is {is}, not {types:?}"));
    }
    if schema.get("const").is_some_and(|c| c != value) {
        wrong(format!("is {value}"));
    }
    if schema["enum"].as_array().is_some_and(|words| !words.contains(value)) {
        wrong(format!("{value} is none of the words"));
    }
    if schema["minimum"].as_i64().zip(value.as_i64()).is_some_and(|(least, is)| is < least) {
        wrong(format!("{value} is too small"));
    }
    if let Value::Object(fields) = value {
        for name in schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str) {
            if !fields.contains_key(name) {
                wrong(format!("has no {name}"));
            }
        }
        for (name, field) in fields {
            match schema["properties"].get(name) {
                Some(inner) => found.extend(faults(root, inner, field, &format!("{at}.{name}"))),
                None => found.push(format!("{at}: {name} is not in the schema")),
            }
        }
    }
    if let Value::Array(items) = value {
        if (items.len() as u64) < schema["minItems"].as_u64().unwrap_or(0) {
            found.push(format!("{at}: has {} items", items.len()));
        }
        for (n, item) in items.iter().enumerate() {
            found.extend(faults(root, &schema["items"], item, &format!("{at}[{n}]")));
        }
    }
    found
}

/// Checks a document of `-J`.
pub fn check(document: &Value) {
    let schema = schema();
    assert_eq!(faults(&schema, &schema, document, "document"), [""; 0]);
}

/// Checks a line of `-j`.
pub fn check_line(line: &Value) {
    check_as("pin", line);
}

/// Checks what has a name in the schema.
pub fn check_as(name: &str, value: &Value) {
    let schema = schema();
    assert_eq!(faults(&schema, &schema["$defs"][name], value, name), [""; 0]);
}

#[test]
fn the_schema_has_all_codes() {
    let schema = schema();
    let words = |at: &str| {
        let words = schema.pointer(at).and_then(Value::as_array).unwrap();
        words.iter().map(|word| word.as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    let codes: Vec<&str> = GapCode::ALL.iter().map(|code| code.word()).collect();
    assert_eq!(words("/$defs/gap/properties/code/enum"), codes);
    let doubts: Vec<&str> = Doubt::ALL.iter().map(|doubt| doubt.word()).collect();
    assert_eq!(words("/$defs/pin/properties/doubts/items/enum"), doubts);
}

#[test]
fn the_checker_finds_faults() {
    let schema = schema();
    let bad = serde_json::json!({"version": 2, "complete": 1, "incomplete": [3], "pins": [{"mode": "x", "new": 1}]});
    let faults = faults(&schema, &schema, &bad, "d").join("\n");
    for part in [
        "d.version",
        "d.complete",
        "d.incomplete[0]",
        "has no id",
        "d.pins[0].mode",
        "has no hidden",
        "new is not",
    ] {
        assert!(faults.contains(part), "{part} in {faults}");
    }
}
