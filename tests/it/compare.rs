//! `echo-reactor compare` and `echo-reactor report`.

use crate::support::schema::fits_schema;
use serde_json::Value;

const SCHEMA: &str = include_str!("../../src/cli/compare/schema.json");

#[test]
fn the_invented_record_fits_the_schema() {
    let text = include_str!("../fixtures/compare.json");
    let record: Value = serde_json::from_str(text).unwrap();
    fits_schema(&record, SCHEMA);
}
