//! No cycle of imports between the files of one module: each file can be read after those that it imports.
//!
//! A file imports another one if a `use`, or a path in its code, names something that the other one defines. A name that is
//! re-exported counts for the file that defines it, and `mod name;` alone is no import. A re-export counts for the file that
//! makes it only where its own code uses the name.

use super::{Source, is_of_a_name, sources};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// A `use` or a path in the code of a file.
struct Import {
    line: usize,
    /// From the root of the crate on.
    path: Vec<String>,
    is_reexport: bool,
}

struct File {
    imports: Vec<Import>,
    /// The code without the lines of imports.
    body: String,
}

/// The module that a file is: `["echo", "accept"]`.
fn module_of(source: &Source) -> Vec<String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let inside = source.path.strip_prefix(root).unwrap().with_extension("");
    let parts = inside.iter().map(|part| part.to_str().unwrap().to_owned());
    parts.collect()
}

/// The paths of a `use`, with its groups taken apart.
fn expand(text: &str) -> Vec<String> {
    let Some(open) = text.find('{') else {
        let path = text.split(" as ").next().unwrap();
        return vec![path.trim().trim_end_matches("::self").to_owned()];
    };
    let close = text.rfind('}').unwrap();
    let (start, group) = (&text[..open], &text[open + 1..close]);
    let mut depth = 0;
    let members = group.split(|letter| {
        depth += i32::from(letter == '{') - i32::from(letter == '}');
        depth == 0 && letter == ','
    });
    members
        .filter(|member| !member.trim().is_empty())
        .flat_map(|member| expand(&format!("{start}{}", member.trim())))
        .collect()
}

/// A path from the root of the crate on; `None` if it leads out of the crate, or is not known to.
fn absolute(path: &str, module: &[String], modules: &BTreeSet<Vec<String>>) -> Option<Vec<String>> {
    let mut parts = path.split("::").map(str::to_owned).peekable();
    let mut at = match parts.peek()?.as_str() {
        "crate" => {
            parts.next();
            Vec::new()
        }
        "self" => {
            parts.next();
            module.to_vec()
        }
        "super" => module.to_vec(),
        child => {
            let inner = [module, &[child.to_owned()]].concat();
            if !modules.contains(&inner) {
                return None;
            }
            module.to_vec()
        }
    };
    while parts.peek().is_some_and(|part| part == "super") {
        parts.next();
        at.pop();
    }
    at.extend(parts);
    Some(at)
}

fn read(source: &Source, modules: &BTreeSet<Vec<String>>) -> File {
    let module = module_of(source);
    let (mut imports, mut body) = (Vec::new(), String::new());
    let mut add = |line, text: &str, is_reexport| {
        for path in expand(text) {
            if let Some(path) = absolute(&path, &module, modules) {
                imports.push(Import {
                    line,
                    path,
                    is_reexport,
                });
            }
        }
    };
    let mut lines = source.code.iter().peekable();
    let mut is_for_documentation = false;
    while let Some((number, line)) = lines.next() {
        let text = line.trim();
        let start = ["", "pub ", "pub(crate) ", "pub(super) "]
            .into_iter()
            .find(|start| text.starts_with(&format!("{start}use ")))
            .filter(|_| text.ends_with([';', '{'])); // and no prose of a help text
        if let Some(start) = start {
            let mut whole = text.to_owned();
            while !whole.contains(';') {
                let next = lines.next();
                whole.push_str(next.expect("the end of an import").1.trim());
            }
            let path = whole.split_once("use ").unwrap().1;
            let path = path.split(';').next().unwrap();
            if !is_for_documentation {
                add(*number, path, !start.is_empty());
            }
        } else {
            for (place, _) in text.match_indices("super::") {
                let is_part = text[..place].ends_with(|c| is_of_a_name(c) || c == ':');
                let end = text[place..].find(|c| !is_of_a_name(c) && c != ':');
                let path = &text[place..end.map_or(text.len(), |end| place + end)];
                if !is_part && !text.starts_with("pub(in") {
                    add(*number, path.trim_end_matches(':'), false);
                }
            }
            body.push_str(text);
            body.push('\n');
        }
        is_for_documentation = text == "#[cfg(doc)]";
    }
    File { imports, body }
}

/// Whether a name stands in the code as a whole word.
fn uses(body: &str, name: &str) -> bool {
    super::behind(body, name).next().is_some()
}

/// The file that defines what a path leads to.
fn definer(
    path: &[String],
    files: &BTreeMap<Vec<String>, File>,
    steps: usize,
) -> Option<Vec<String>> {
    let mut length = path.len();
    while !files.contains_key(&path[..length]) {
        length = length.checked_sub(1)?;
    }
    let (module, rest) = path.split_at(length);
    let Some(name) = rest.first() else {
        return Some(module.to_vec());
    };
    let through = files[module].imports.iter().find(|import| {
        import.is_reexport && import.path.last() == Some(name) && import.path != path
    });
    match through {
        Some(import) if steps > 0 => definer(&import.path, files, steps - 1),
        _ => Some(module.to_vec()),
    }
}

/// For each file the files that it imports, each with the line.
type Edges = BTreeMap<Vec<String>, BTreeMap<Vec<String>, usize>>;

fn edges(files: &BTreeMap<Vec<String>, File>) -> Edges {
    let mut edges = Edges::new();
    for (module, file) in files {
        let to = edges.entry(module.clone()).or_default();
        for import in &file.imports {
            let name = import.path.last().unwrap();
            if import.is_reexport && !uses(&file.body, name) {
                continue;
            }
            let Some(other) = definer(&import.path, files, 4) else {
                continue;
            };
            if other != *module && other.first() == module.first() {
                to.entry(other).or_insert(import.line);
            }
        }
    }
    edges
}

fn reachable(from: &[String], edges: &Edges) -> BTreeSet<Vec<String>> {
    let mut seen = BTreeSet::new();
    let mut next = vec![from.to_vec()];
    while let Some(module) = next.pop() {
        for other in edges.get(&module).into_iter().flat_map(BTreeMap::keys) {
            if seen.insert(other.clone()) {
                next.push(other.clone());
            }
        }
    }
    seen
}

#[test]
fn files_of_a_module_do_not_import_each_other_in_a_cycle() {
    let sources = sources();
    let modules: BTreeSet<Vec<String>> = sources.iter().map(module_of).collect();
    let files: BTreeMap<Vec<String>, File> = sources
        .iter()
        .map(|source| (module_of(source), read(source, &modules)))
        .collect();
    let edges = edges(&files);
    let count: usize = edges.values().map(BTreeMap::len).sum();
    assert!(count > 60, "too few imports were found: {count}");
    let mut wrong = Vec::new();
    for (module, to) in &edges {
        for (other, line) in to {
            let is_cycle = reachable(other, &edges).contains(module);
            let name = |module: &[String]| module.join("/");
            let pair = [name(module), name(other)];
            if is_cycle {
                wrong.push(format!(
                    "src/{}.rs:{line} imports src/{}.rs",
                    pair[0], pair[1]
                ));
            }
        }
    }
    assert!(
        wrong.is_empty(),
        "imports in a cycle:\n{}",
        wrong.join("\n")
    );
}

#[test]
fn groups_of_imports_are_taken_apart() {
    assert_eq!(expand("super::a::B"), ["super::a::B"]);
    assert_eq!(
        expand("super::{a::{self, B}, C as D}"),
        ["super::a", "super::a::B", "super::C"]
    );
}
