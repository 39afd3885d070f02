//! Reports in JSON and their schemas.

use boon::{Compiler, Draft, Schemas};
use serde_json::Value;

/// Panics with all that the schema does not allow in the report.
#[track_caller]
pub(crate) fn fits_schema(report: &Value, schema: &str) {
    const NAME: &str = "https://schema.invalid/report.json";
    let schema = serde_json::from_str(schema).unwrap();
    let (mut schemas, mut compiler) = (Schemas::new(), Compiler::new());
    compiler.set_default_draft(Draft::V2020_12);
    compiler.add_resource(NAME, schema).unwrap();
    let compiled = compiler.compile(NAME, &mut schemas).unwrap();
    let checked = schemas.validate(report, compiled);
    if let Err(error) = checked {
        panic!("{error:#}");
    }
}
