//! Checking a report against its schema, with as much of JSON Schema as the schemas of this project use.

use serde_json::Value;

/// Panics at the first thing in `report` that the schema does not allow.
#[track_caller]
pub(crate) fn fits_schema(report: &Value, schema: &str) {
    let schema: Value = serde_json::from_str(schema).unwrap();
    check(&schema, &schema, report, "");
}

/// Checks a value, with as much of JSON Schema as the schemas use.
fn check(root: &Value, schema: &Value, value: &Value, at: &str) {
    if let Some(reference) = schema["$ref"].as_str() {
        let target = root.pointer(reference.trim_start_matches('#')).unwrap();
        return check(root, target, value, at);
    }
    if let Some(constant) = schema.get("const") {
        assert_eq!(value, constant, "{at}");
    }
    if let Some(allowed) = schema["enum"].as_array() {
        assert!(allowed.contains(value), "{at}: {value}");
    }
    let kinds: Vec<&str> = match &schema["type"] {
        Value::String(kind) => vec![kind],
        Value::Array(kinds) => kinds.iter().filter_map(Value::as_str).collect(),
        _ => Vec::new(),
    };
    let is = |kind: &&str| match *kind {
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "boolean" => value.is_boolean(),
        "integer" => value.is_u64(),
        "number" => value.is_number(),
        "null" => value.is_null(),
        other => panic!("the schema knows a {other}, this test does not"),
    };
    assert!(
        kinds.is_empty() || kinds.iter().any(is),
        "{at}: {value} is no {kinds:?}"
    );
    for name in schema["required"].as_array().into_iter().flatten() {
        let name = name.as_str().unwrap();
        assert!(
            value.is_null() || value.get(name).is_some(),
            "{at}/{name} is missing"
        );
    }
    for (name, member) in value.as_object().into_iter().flatten() {
        let at = format!("{at}/{name}");
        match (
            schema["properties"].get(name),
            &schema["additionalProperties"],
        ) {
            (Some(schema), _) => check(root, schema, member, &at),
            (None, Value::Bool(false)) => panic!("{at} is not in the schema"),
            (None, schema) => check(root, schema, member, &at),
        }
    }
    for (place, item) in value.as_array().into_iter().flatten().enumerate() {
        check(root, &schema["items"], item, &format!("{at}/{place}"));
    }
}
