//! The JSON Schema of the configuration file, from the same structs that read it.

use std::sync::OnceLock;

use schemars::Schema;
use schemars::transform::{Transform, transform_subschemas};
use serde_json::{Map, Value, json};

use super::Config;
use super::units::Unit;

/// The JSON Schema of the configuration file.
pub fn schema() -> Value {
    let mut schema = schemars::schema_for!(Config);
    for_readers(&mut schema);
    let mut schema = schema.to_value();
    // As in Compose: what stands under such a name is for anchors, and read by nobody.
    schema["patternProperties"] = json!({ "^x-": {} });
    schema
}

/// What the schema says about the option at a path of keys, its last key among them.
pub fn description(path: &[String]) -> Option<String> {
    static SCHEMA: OnceLock<Value> = OnceLock::new();
    let root = SCHEMA.get_or_init(schema);
    let mut at = root.as_object()?;
    let mut text = None;
    for key in path {
        if key.starts_with('[') {
            return None;
        }
        let next = at.get("properties").and_then(|properties| properties.get(key));
        let next = next.or_else(|| at.get("additionalProperties"))?.as_object()?;
        text = next.get("description").and_then(Value::as_str);
        at = resolve(root, next)?;
    }
    text.map(|text| text.replace('\n', " ")).map(|text| text.trim_end_matches('.').to_owned())
}

/// Follows a reference, alone or as the non-null half of an optional value.
fn resolve<'v>(root: &'v Value, schema: &'v Map<String, Value>) -> Option<&'v Map<String, Value>> {
    let options = schema.get("anyOf").and_then(Value::as_array);
    let reference = schema.get("$ref").or_else(|| options?.iter().find_map(|option| option.get("$ref")));
    match reference.and_then(Value::as_str) {
        Some(reference) => root.pointer(reference.strip_prefix('#')?)?.as_object(),
        None => Some(schema),
    }
}

/// Adapts descriptions and types to who reads the schema: people and their editors.
fn for_readers(schema: &mut Schema) {
    if let Some(Value::String(text)) = schema.get_mut("description") {
        *text = without_statements(text);
    }
    // Mappings of strings are properties for librdkafka, where one writes numbers and truth values as they are; the
    // decoder takes them as text.
    if let Some(values) = schema.get_mut("additionalProperties").and_then(Value::as_object_mut)
        && values.get("type") == Some(&json!("string"))
    {
        values.insert("type".into(), json!(["string", "number", "boolean"]));
    }
    if let Some(properties) = schema.get_mut("properties").and_then(Value::as_object_mut) {
        properties.iter_mut().for_each(|(name, property)| with_units(name, property));
    }
    transform_subschemas(&mut for_readers as &mut dyn Transform, schema);
}

/// A number that counts seconds or bytes may have a unit of its own, as a string.
fn with_units(name: &str, property: &mut Value) {
    let (Some(unit), Some(property)) = (Unit::of(name), property.as_object_mut()) else { return };
    let mut types = match property.get("type") {
        Some(Value::Array(types)) => types.clone(),
        Some(one) => vec![one.clone()],
        None => return,
    };
    if types.iter().any(|one| *one == "number" || *one == "integer") {
        types.push(json!("string"));
        property.insert("type".into(), Value::Array(types));
        property.insert("pattern".into(), json!(unit.pattern()));
    }
}

/// The text without references to our semantics, such as ` (S6, S7)`.
fn without_statements(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(open) = rest.find(" (S") {
        let (before, after) = rest.split_at(open);
        let statement = |c: char| c.is_ascii_digit() || matches!(c, 'S' | 'a' | 'b' | ',' | ' ' | '–');
        out.push_str(before);
        match after[2..].split_once(')') {
            Some((inner, tail)) if inner.chars().all(statement) => rest = tail,
            _ => {
                out.push_str(&after[..2]);
                rest = &after[2..];
            }
        }
    }
    out.push_str(rest);
    out
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    fn path(path: &[&str]) -> Vec<String> {
        path.iter().map(|key| (*key).to_owned()).collect()
    }

    #[test]
    fn every_option_is_described() {
        fn walk(at: &str, schema: &Value, bare: &mut Vec<String>) {
            for (name, property) in schema.get("properties").and_then(Value::as_object).into_iter().flatten() {
                if property.get("description").is_none() {
                    bare.push(format!("{at}.{name}"));
                }
            }
        }
        let schema = schema();
        let mut bare = Vec::new();
        walk("root", &schema, &mut bare);
        for (name, definition) in schema["$defs"].as_object().unwrap() {
            walk(name, definition, &mut bare);
        }
        assert_eq!(bare, Vec::<String>::new());
        assert_eq!(schema["additionalProperties"], json!(false));
        assert!(!schema.to_string().contains("(S"), "{schema}");
    }

    /// Every number whose name says what it counts takes a value with a unit, for editors as for the decoder.
    #[test]
    fn every_duration_and_size_has_both_forms() {
        fn walk(at: &Value, found: &mut Vec<(String, Value)>) {
            for (name, property) in at["properties"].as_object().into_iter().flatten() {
                if Unit::of(name).is_some() {
                    found.push((name.clone(), property.clone()));
                }
            }
            for definition in at["$defs"].as_object().into_iter().flatten() {
                walk(definition.1, found);
            }
        }
        let mut found = Vec::new();
        walk(&schema(), &mut found);
        assert!(found.len() >= 20, "{found:?}");
        for (name, property) in found {
            let types = property["type"].as_array().unwrap_or_else(|| panic!("{name}: {property}"));
            assert!(types.contains(&json!("string")) && property["pattern"].is_string(), "{name}: {property}");
        }
    }

    #[test]
    fn options_are_described_by_path() {
        assert_eq!(description(&path(&["kafka", "brokers"])).unwrap(), "`host:port`, or a list of them");
        assert_eq!(description(&path(&["sinks", "kafka", "results", "topic"])).unwrap(), "The topic");
        assert_eq!(
            description(&path(&["collect", "limits", "memory_mebibytes"])).unwrap(),
            "Most memory of one instance, in MiB"
        );
        assert_eq!(description(&path(&["sinks", "nothing"])), None);
    }

    #[test]
    fn statements_are_for_us() {
        assert_eq!(without_statements("Seconds (S6, S7) until (due) x (S12)."), "Seconds until (due) x.");
        assert_eq!(without_statements("A (Sound) one"), "A (Sound) one");
    }
}
