//! JSON and its schemas: reports, and manifests.

use boon::{Compiler, Draft, Schemas};
use serde_json::Value;

/// Whether the schema allows the value; if not, all that it does not allow.
pub(crate) fn check_schema(value: &Value, schema: &str) -> Result<(), String> {
    const NAME: &str = "https://schema.invalid/report.json";
    let schema = serde_json::from_str(schema).unwrap();
    let (mut schemas, mut compiler) = (Schemas::new(), Compiler::new());
    compiler.set_default_draft(Draft::V2020_12);
    compiler.add_resource(NAME, schema).unwrap();
    let compiled = compiler.compile(NAME, &mut schemas).unwrap();
    let checked = schemas.validate(value, compiled);
    checked.map_err(|error| format!("{error:#}"))
}

/// Panics with all that the schema does not allow in the report.
#[track_caller]
pub(crate) fn fits_schema(report: &Value, schema: &str) {
    if let Err(error) = check_schema(report, schema) {
        panic!("{error}");
    }
}
