//! The public surface of the library: what is promised, against the record in `public_api.txt`.
//!
//! rustdoc writes what the sources declare as JSON, which on the stable toolchain needs `RUSTC_BOOTSTRAP=1`. A line of the
//! record is one item as its source declares it, without bodies; so a change of the surface is a change of that file, and
//! seen in review. `ECHO_RENEW=1 cargo test --all-features --test it public_api` writes the file anew.
//!
//! Not in the record: modules and items with a paragraph of documentation that begins with "Unpromised", and blanket
//! implementations. Three rules are checked beside the record: no type of another crate in a promised signature, no
//! array length, and features only add.

use serde_json::{Map, Value};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

const RECORD: &str = "tests/it/public_api.txt";
/// The features that a program that embeds the library would choose; those of the command line need 60 more crates.
const FEATURES: &str = "pktinfo timerfd return-memory";
/// Unpromised items that a promised signature names: the parameter of `Server`, and its default.
const NAMED_ALL_THE_SAME: [&str; 2] = ["Backend", "Os"];

#[test]
fn public_api_is_as_recorded() {
    let declared = Surface::read("").lines();
    if std::env::var_os("ECHO_RENEW").is_some() {
        fs::write(root().join(RECORD), declared.join("\n") + "\n").unwrap();
    }
    let recorded = fs::read_to_string(root().join(RECORD)).unwrap();
    let recorded: BTreeSet<&str> = recorded.lines().collect();
    let declared: BTreeSet<&str> = declared.iter().map(String::as_str).collect();
    let gone = recorded
        .difference(&declared)
        .map(|line| format!("- {line}"));
    let new = declared
        .difference(&recorded)
        .map(|line| format!("+ {line}"));
    let difference: Vec<String> = gone.chain(new).collect();
    assert!(
        difference.is_empty(),
        "the public surface is not as {RECORD} records it:\n{}\nIf that is meant, say so in the commit and renew the record:\n\
         ECHO_RENEW=1 cargo test --all-features --test it public_api",
        difference.join("\n")
    );
}

#[test]
fn public_api_only_grows_by_features() {
    let (plain, featured) = (Surface::read("").lines(), Surface::read(FEATURES).lines());
    let featured: BTreeSet<String> = featured.into_iter().collect();
    let gone: Vec<String> = (plain.into_iter())
        .filter(|line| !featured.contains(line))
        .collect();
    assert!(
        gone.is_empty(),
        "with the features {FEATURES}, these items are missing or different:\n{}",
        gone.join("\n")
    );
}

/// mio, socket2 and libc can change their major version without a change of this crate's.
#[test]
fn public_api_names_no_other_crate_and_no_unpromised_type() {
    let surface = Surface::read("");
    let mut wrong = BTreeSet::new();
    for item in surface.items.values() {
        for type_ in named_types(&surface.index[&item.id]["inner"]) {
            let Some(place) = surface.paths.get(&type_) else {
                continue; // a parameter
            };
            let path: Vec<&str> = (place["path"].as_array().unwrap().iter())
                .map(|part| part.as_str().unwrap())
                .collect();
            let is_known = match path[0] {
                "std" | "core" | "alloc" => true,
                "echo_reactor" => {
                    surface.promised.contains(&type_)
                        || NAMED_ALL_THE_SAME.contains(path.last().unwrap())
                }
                _ => false,
            };
            if !is_known {
                wrong.insert(format!("{} names {}", item.line, path.join("::")));
            }
        }
        if item.line.contains("; ") && item.line.contains('[') {
            wrong.insert(format!("{} has an array length in it", item.line));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// One promised item.
struct Item {
    id: String,
    line: String,
}

/// What rustdoc tells of the library with some features.
struct Surface {
    index: Map<String, Value>,
    paths: Map<String, Value>,
    /// By place, so that an item which is exported twice has two lines.
    items: BTreeMap<String, Item>,
    /// The items that are promised themselves, by id.
    promised: BTreeSet<String>,
}

impl Surface {
    fn read(features: &str) -> Self {
        static PLAIN: OnceLock<Value> = OnceLock::new();
        let document = match features {
            "" => PLAIN.get_or_init(|| rustdoc("")).clone(), // three tests read it
            _ => rustdoc(features),
        };
        let Value::Object(mut document) = document else {
            panic!("rustdoc writes an object");
        };
        let part = |document: &mut Map<String, Value>, name: &str| match document.remove(name) {
            Some(Value::Object(part)) => part,
            other => panic!("rustdoc's JSON has no object {name}: {other:?}"),
        };
        let root = id(&document["root"]);
        let mut surface = Self {
            index: part(&mut document, "index"),
            paths: part(&mut document, "paths"),
            items: BTreeMap::new(),
            promised: BTreeSet::new(),
        };
        surface.add_module(&root, "echo_reactor");
        surface
    }

    fn lines(&self) -> Vec<String> {
        let lines: BTreeSet<String> = self.items.values().map(|item| item.line.clone()).collect();
        lines.into_iter().collect()
    }

    fn add_module(&mut self, module: &str, path: &str) {
        let mut children = ids(&self.index[module]["inner"]["module"]["items"]);
        // The shortest path to an item is the one that has its members in the record.
        children.sort_by_key(|child| {
            (
                self.index
                    .get(child)
                    .is_some_and(|child| child["inner"].get("module").is_some()),
                child.clone(),
            )
        });
        for child in children {
            self.add(&child, path, None);
        }
    }

    /// Adds an item and what belongs to it. `rename` is the name under which it is exported.
    fn add(&mut self, id: &str, path: &str, rename: Option<&str>) {
        let Some(item) = self.index.get(id).cloned() else {
            return;
        };
        let Some((kind, inner)) = item["inner"]
            .as_object()
            .and_then(|inner| inner.iter().next())
        else {
            return;
        };
        if kind == "use" {
            if let Some(target) = inner["id"].as_u64() {
                self.add(&target.to_string(), path, inner["name"].as_str());
            }
            return;
        }
        let Some(name) = rename.or(item["name"].as_str()) else {
            return;
        };
        let page = item["docs"].as_str().unwrap_or_default();
        if page.lines().any(|line| line.starts_with("Unpromised")) {
            return;
        }
        let inside = format!("{path}::{name}");
        if kind == "module" {
            self.add_module(id, &inside);
            return;
        }
        let is_known = self.promised.contains(id);
        self.put(id, &inside, path, &item);
        if is_known {
            return; // its members stand in the record already, under the first name
        }
        let children = match kind.as_str() {
            "struct" => inner["kind"]["plain"]["fields"].clone(),
            "enum" => inner["variants"].clone(),
            "trait" => inner["items"].clone(),
            _ => Value::Null,
        };
        for child in ids(&children) {
            if let Some(member) = self.index.get(&child).cloned() {
                let place = format!("{inside}::{}", member["name"].as_str().unwrap_or("_"));
                self.put(&child, &place, &inside, &member);
            }
        }
        let mut implementations = ids(&inner["impls"]);
        implementations.sort_by_key(|id| {
            let implementation = self.index.get(id);
            implementation.map(|item| item["inner"]["impl"]["trait"]["path"].to_string())
        });
        for implementation in implementations {
            self.add_impl(&implementation, &inside);
        }
    }

    fn add_impl(&mut self, id: &str, path: &str) {
        let Some(item) = self.index.get(id).cloned() else {
            return;
        };
        let inner = &item["inner"]["impl"];
        if !inner["blanket_impl"].is_null() {
            return;
        }
        let Some(implemented) = inner["trait"]["path"].as_str() else {
            for method in ids(&inner["items"]) {
                if let Some(item) = self.index.get(&method).cloned() {
                    let place = format!("{path}::{}", item["name"].as_str().unwrap_or("_"));
                    self.put(&method, &place, path, &item);
                }
            }
            return;
        };
        let implemented = implemented.rsplit("::").next().unwrap_or_default();
        let is_automatic = inner["is_synthetic"].as_bool().unwrap_or_default();
        if is_automatic && !matches!(implemented, "Send" | "Sync")
            || implemented == "StructuralPartialEq"
        {
            return;
        }
        let not = if inner["is_negative"].as_bool().unwrap_or_default() {
            "!"
        } else {
            ""
        };
        let id = id.to_owned();
        let header = declaration(&item);
        let parameter = &inner["trait"]["args"]["angle_bracketed"]["args"][0]["type"];
        let line = if header.starts_with("impl") {
            format!("{path}: {header}")
        } else if let Some(parameter) = parameter["resolved_path"]["path"].as_str() {
            format!("{path}: impl {implemented}<{parameter}>") // by a macro
        } else {
            // Derived, or automatic: one line for all of them.
            let place = format!("{path}: impl");
            let line = match self.items.remove(&place) {
                Some(before) => format!("{} + {not}{implemented}", before.line),
                None => format!("{place} {not}{implemented}"),
            };
            self.items.insert(place, Item { id, line });
            return;
        };
        self.items.insert(line.clone(), Item { id, line });
    }

    fn put(&mut self, id: &str, place: &str, parent: &str, item: &Value) {
        self.promised.insert(id.to_owned());
        let attributes = item["attrs"].to_string();
        let open = if attributes.contains("non_exhaustive") {
            "#[non_exhaustive] "
        } else {
            ""
        };
        let line = format!("{parent}: {open}{}", declaration(item));
        let id = id.to_owned();
        self.items.insert(place.to_owned(), Item { id, line });
    }
}

/// How the sources declare an item: its text up to its body, on one line, without attributes and comments.
fn declaration(item: &Value) -> String {
    let span = &item["span"];
    let Some(file) = span["filename"].as_str() else {
        return String::new();
    };
    let text = fs::read_to_string(root().join(file)).unwrap();
    let number = |at: &Value| usize::try_from(at.as_u64().unwrap()).unwrap();
    let (first, last) = (number(&span["begin"][0]), number(&span["end"][0]));
    let column = number(&span["begin"][1]) - 1;
    let mut declaration = String::new();
    for (index, line) in (text.lines().enumerate())
        .skip(first - 1)
        .take(last + 1 - first)
    {
        let line = if index + 1 == first {
            &line[column..]
        } else {
            line
        };
        let line = line.trim();
        if !line.starts_with("//") && !line.starts_with('#') {
            declaration += line;
            declaration.push(' ');
        }
    }
    let kind = item["inner"]
        .as_object()
        .and_then(|inner| inner.keys().next());
    let end = match kind.map(String::as_str) {
        Some("constant" | "assoc_const") => declaration.find(" ="),
        Some("struct" | "enum" | "function" | "impl" | "trait") => {
            declaration.find(" {").or(declaration.find(';'))
        }
        _ => None,
    };
    declaration.truncate(end.unwrap_or(declaration.len()));
    let declaration = declaration.trim().trim_end_matches(',');
    // As it would be on one line.
    (declaration.replace("( ", "(").replace(", )", ")")).replace(",)", ")")
}

/// Every type and trait that is named in a part of rustdoc's JSON, by id.
fn named_types(part: &Value) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    collect_types(part, &mut found);
    found
}

fn collect_types(part: &Value, found: &mut BTreeSet<String>) {
    match part {
        Value::Array(parts) => parts.iter().for_each(|part| collect_types(part, found)),
        Value::Object(parts) => {
            if parts.contains_key("path") && parts.contains_key("args") {
                found.insert(id(&parts["id"]));
            }
            for (name, part) in parts {
                // Members and implementations are items of their own.
                if !matches!(name.as_str(), "impls" | "items" | "fields" | "variants") {
                    collect_types(part, found);
                }
            }
        }
        _ => {}
    }
}

fn id(value: &Value) -> String {
    value.to_string().trim_matches('"').to_owned()
}

fn ids(list: &Value) -> Vec<String> {
    let list = list.as_array().map(Vec::as_slice).unwrap_or_default();
    list.iter().map(id).collect()
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).to_owned()
}

/// Builds rustdoc's JSON in a target folder of its own: `RUSTC_BOOTSTRAP` would have the other one built anew.
fn rustdoc(features: &str) -> Value {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("public-api");
    let folder = folder.join(features.replace(' ', "-"));
    let output = Command::new(env!("CARGO"))
        .args([
            "rustdoc",
            "--lib",
            "--quiet",
            "--locked",
            "--no-default-features",
        ])
        .args(["--features", features, "--target-dir"])
        .arg(&folder)
        .args(["--", "-Zunstable-options", "--output-format", "json"])
        .args(["--cap-lints", "allow"])
        .current_dir(root())
        .env("RUSTC_BOOTSTRAP", "1")
        .env_remove("RUSTFLAGS")
        .output()
        .expect("cargo is there, since it runs this test");
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let text = fs::read(folder.join("doc/echo_reactor.json")).unwrap();
    serde_json::from_slice(&text).unwrap()
}
