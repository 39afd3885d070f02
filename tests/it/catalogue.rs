//! The fault catalogue: each test is named after the row that it shows, one file for each letter.
//!
//! A row that needs events no kernel gives on demand is tested in the simulated network: a unit test with the row's
//! name beside `src/simulation`. A test that needs root or a missing tool is skipped, and says so in one line. Where a
//! row gives a time, the test asserts it with a margin, since other processes use the processors too, and prints the
//! time it measured. All rows are listed in `rows.tsv`; `scripts/catalogue` runs them and prints them as a table.

mod accept;
mod backpressure;
#[cfg(feature = "bench")]
mod clients;
mod closing;
mod config;
mod edges;
mod fairness;
mod logs;
mod network;
mod stop;
mod udp;
mod unix;
mod whole;
mod workers;

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

/// The ids that the names of tests begin with: `a1` of `a1_real_emfile`.
fn ids_of_tests(folder: &Path, ids: &mut BTreeSet<String>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            ids_of_tests(&path, ids);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = fs::read_to_string(&path).unwrap();
            ids.extend(text.lines().zip(text.lines().skip(1)).filter_map(id));
        }
    }
}

/// The id of the test that these two lines begin, if it has one.
fn id((attribute, line): (&str, &str)) -> Option<String> {
    let name = line.trim_start().strip_prefix("fn ")?;
    let (id, _) = name.split_once('_')?;
    let number = id.strip_prefix(|letter: char| letter.is_ascii_lowercase())?;
    let is_id = !number.is_empty() && number.chars().all(|digit| digit.is_ascii_digit());
    (attribute.trim_start().starts_with("#[") && is_id).then(|| id.to_owned())
}

/// Every row of the table has a test, and every test with an id has a row. A row that cannot be tested gives its
/// reason.
#[test]
fn every_row_has_a_test_and_every_test_a_row() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut tested = BTreeSet::new();
    for folder in ["src", "tests/it"] {
        ids_of_tests(&root.join(folder), &mut tested);
    }
    let table = fs::read_to_string(root.join("tests/it/catalogue/rows.tsv")).unwrap();
    let (mut listed, mut excused) = (BTreeSet::new(), BTreeSet::new());
    for line in table.lines() {
        let mut columns = line.split('\t');
        let row = columns.next().unwrap().to_lowercase();
        assert!(columns.next().is_some_and(|fault| !fault.is_empty()));
        if columns.next().is_some() {
            excused.insert(row.clone());
        }
        assert!(listed.insert(row.clone()), "{row} is listed twice");
    }
    let unknown: Vec<&String> = tested.difference(&listed).collect();
    assert!(unknown.is_empty(), "rows.tsv does not know {unknown:?}");
    let untested: Vec<&String> = listed
        .difference(&tested)
        .filter(|row| !excused.contains(*row))
        .collect();
    assert!(untested.is_empty(), "no test is named after {untested:?}");
}
