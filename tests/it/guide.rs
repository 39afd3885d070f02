//! README and the guide state what is true: tables against the program, names against the sources, links against the
//! files, and commands by running them.

mod commands;

use crate::support::{ended, program};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

// --- Reading the pages -------------------------------------------------------------------------------------------------

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// README and the pages of the guide: path and text.
fn pages() -> Vec<(PathBuf, String)> {
    let guide = fs::read_dir(root().join("src/guide")).unwrap();
    let mut paths: Vec<PathBuf> = guide.map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    assert_eq!(paths.len(), 14, "the pages of the guide are read");
    paths.push(root().join("README.md"));
    paths.push(root().join("src/guide.rs"));
    let read = |path: PathBuf| (path.clone(), fs::read_to_string(path).unwrap());
    paths.into_iter().map(read).collect()
}

fn page(name: &str) -> String {
    fs::read_to_string(root().join("src/guide").join(name)).unwrap()
}

/// The text outside of the blocks of code, and the lines of the blocks with their language.
fn prose_and_code(text: &str) -> (String, Vec<(String, String)>) {
    let (mut prose, mut code) = (String::new(), Vec::new());
    let mut language: Option<String> = None;
    for line in text.lines() {
        match (line.strip_prefix("```"), &language) {
            (Some(_), Some(_)) => language = None,
            (Some(name), None) => language = Some(name.to_owned()),
            (None, Some(name)) => code.push((name.clone(), line.to_owned())),
            (None, None) => {
                prose.push_str(line);
                prose.push('\n');
            }
        }
    }
    assert_eq!(language, None, "a block of code has no end");
    (prose, code)
}

/// What stands between backticks.
fn quoted(prose: &str) -> Vec<&str> {
    prose.split('`').skip(1).step_by(2).collect()
}

/// The rows of the table whose first heading is this: cells without the spaces around them.
fn table(text: &str, heading: &str) -> Vec<Vec<String>> {
    let start = format!("| {heading} |");
    let mut lines = text.lines().skip_while(|line| !line.starts_with(&start));
    assert!(lines.next().is_some(), "there is no table of '{heading}'");
    let rows = lines.skip(1).take_while(|line| line.starts_with('|'));
    let cells = |line: &str| {
        let inner = line.trim_matches('|').split('|');
        inner.map(|cell| cell.trim().to_owned()).collect()
    };
    rows.map(cells).collect()
}

/// The help of a command, on lines that are not broken.
fn help(command: &str) -> String {
    let mut program = program();
    let told = ended(program.args([command, "--help"]).env("COLUMNS", "1000"));
    assert_eq!(told.code, 0, "{}", told.err);
    told.out
}

// --- The front page ----------------------------------------------------------------------------------------------------

#[test]
fn readme_is_a_front_page() {
    let readme = fs::read_to_string(root().join("README.md")).unwrap();
    let (lines, words) = (readme.lines().count(), readme.split_whitespace().count());
    assert!(lines <= 200, "README has {lines} lines");
    assert!(words <= 1_600, "README has {words} words");
}

/// Paths relative to README or to the page. What rustdoc resolves by itself (`crate::`, `super::`, `std::`) is checked by
/// `cargo doc`.
#[test]
fn every_relative_link_leads_to_a_file() {
    let (mut seen, mut wrong) = (0, Vec::new());
    for (path, text) in pages() {
        for link in text.split("](").skip(1) {
            let link = link.split([')', '#']).next().unwrap();
            let is_elsewhere = ["https://", "http://", "crate::", "super::", "std::"]
                .iter()
                .any(|start| link.starts_with(start));
            if is_elsewhere || link.is_empty() {
                continue;
            }
            seen += 1;
            if !path.parent().unwrap().join(link).exists() {
                wrong.push(format!("{}: {link}", path.display()));
            }
        }
    }
    assert!(seen > 15, "too few links were found: {seen}");
    assert_eq!(wrong, Vec::<String>::new());
}

// --- Names -------------------------------------------------------------------------------------------------------------

/// Every source below a folder of the crate.
fn sources(folder: &str) -> Vec<PathBuf> {
    let (mut found, mut folders) = (Vec::new(), vec![root().join(folder)]);
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else {
                found.push(path);
            }
        }
    }
    found
}

#[test]
fn files_that_the_pages_name_exist() {
    let all = sources("src");
    let (mut seen, mut wrong) = (0, Vec::new());
    for (path, text) in pages() {
        for name in quoted(&prose_and_code(&text).0) {
            let name = name.trim_end_matches('/');
            let first = name.split('/').next().unwrap();
            let exists = match first {
                "src" | "tests" | "scripts" | "benches" if name.contains('/') => {
                    let file = name.split(' ').next().unwrap();
                    root().join(file).exists()
                }
                _ if name.ends_with(".rs") => all.iter().any(|path| path.ends_with(name)),
                _ => continue,
            };
            seen += 1;
            if !exists {
                wrong.push(format!("{}: {name}", path.display()));
            }
        }
    }
    assert!(seen > 20, "too few files were found: {seen}");
    assert_eq!(wrong, Vec::<String>::new());
}

/// Names of the form `Type::function`, and those in the table of the path, which leaves out the type.
#[test]
fn functions_that_the_guide_names_exist() {
    const FOREIGN: [&str; 4] = ["Poll", "Registry", "Interest", "ErrorKind"];
    let code: String = sources("src")
        .iter()
        .filter(|path| path.extension().is_some_and(|extension| extension == "rs"))
        .map(|path| fs::read_to_string(path).unwrap())
        .collect();
    let defines = |name: &str| {
        let forms = [
            format!("fn {name}("),
            format!("fn {name}<"),
            format!("{name}:"),
        ];
        forms.iter().any(|form| code.contains(form))
            || code.lines().any(|line| {
                line.trim()
                    .strip_prefix(name)
                    .is_some_and(|rest| rest.is_empty() || rest.starts_with([',', '(', ' ']))
            })
    };
    let (mut seen, mut wrong) = (0, Vec::new());
    for (path, text) in pages() {
        let prose = prose_and_code(&text).0;
        let functions = table_of_functions(&prose);
        let names = quoted(&prose).into_iter().filter_map(|name| {
            let (owner, name) = name.split_once("::")?;
            let is_type = owner.starts_with(|letter: char| letter.is_ascii_uppercase());
            (is_type && !FOREIGN.contains(&owner)).then(|| name.to_owned())
        });
        for name in names.chain(functions) {
            seen += 1;
            if !defines(&name) {
                wrong.push(format!("{}: {name}", path.display()));
            }
        }
    }
    assert!(seen > 20, "too few names were found: {seen}");
    assert_eq!(wrong, Vec::<String>::new());
}

/// The third column of the table of steps.
fn table_of_functions(prose: &str) -> Vec<String> {
    if !prose.contains("| step |") {
        return Vec::new();
    }
    let rows = table(prose, "step");
    let cells = rows.iter().map(|row| row[2].clone());
    cells
        .flat_map(|cell| {
            let names = quoted(&cell).into_iter();
            let names = names.map(|name| name.rsplit("::").next().unwrap().to_owned());
            names.collect::<Vec<_>>()
        })
        .collect()
}

/// The mistakes that the guide names and those of `tests/mutants` are the same.
#[test]
fn every_mistake_of_the_guide_is_a_mutant() {
    let files: BTreeSet<String> = sources("tests/mutants")
        .iter()
        .filter_map(|path| path.file_name()?.to_str()?.strip_suffix(".patch"))
        .map(str::to_owned)
        .collect();
    let text = page("mistakes.md");
    let mut named = BTreeSet::new();
    for part in text.split("*Mistake").skip(1) {
        let part = part.trim_start_matches("s").trim_start_matches(":*");
        let sentence = part.split(".\n").next().unwrap();
        named.extend(quoted(sentence).into_iter().map(str::to_owned));
    }
    assert!(named.len() > 20, "too few mistakes were found: {named:?}");
    let missing: Vec<&String> = named.difference(&files).collect();
    assert!(missing.is_empty(), "not in tests/mutants: {missing:?}");
    // And each mutant names a heading of the guide: `Guide: page, heading`.
    let mut wrong = Vec::new();
    for name in &files {
        let patch = root().join(format!("tests/mutants/{name}.patch"));
        let patch = fs::read_to_string(patch).unwrap();
        let place = patch.lines().find_map(|line| line.strip_prefix("Guide: "));
        let is_there =
            place
                .and_then(|place| place.split_once(", "))
                .is_some_and(|(page_name, heading)| {
                    let page = page(&format!("{page_name}.md"));
                    page.lines().any(|line| {
                        line.starts_with('#') && line.trim_start_matches(['#', ' ']) == heading
                    })
                });
        if !is_there {
            wrong.push(format!("{name}: {place:?}"));
        }
    }
    assert!(wrong.is_empty(), "no such heading: {wrong:?}");
}

/// README says how many lines the files of its reading order have, without their tests.
#[test]
fn readme_counts_the_lines_that_are_read() {
    let readme = fs::read_to_string(root().join("README.md")).unwrap();
    let section = readme.split("## Read the source").nth(1).unwrap();
    let steps = section.split("\n2. ").nth(1).unwrap();
    let steps = steps.split("\n6. ").next().unwrap();
    let links = steps.split("](").skip(1);
    let lines: usize = links
        .map(|link| {
            let path = root().join(link.split(')').next().unwrap());
            let text = fs::read_to_string(path).unwrap();
            let end = text
                .find("\n#[cfg(test)]\nmod tests {")
                .unwrap_or(text.len());
            text[..end].lines().count()
        })
        .sum();
    let stated = readme.split(" lines, comments included").next().unwrap();
    let stated: String = stated.rsplit(' ').next().unwrap().replace(',', "");
    let stated: usize = stated.parse().unwrap();
    assert!(
        stated.abs_diff(lines) * 10 <= lines,
        "README says {stated} lines, and they are {lines}"
    );
}

// --- Tables ------------------------------------------------------------------------------------------------------------

/// A value as the guide writes it, in the form of the help.
fn as_in_help(value: &str) -> String {
    match value {
        "the system's maximum" => return "max".to_owned(),
        "the kernel's tuning" => return "auto".to_owned(),
        _ => {}
    }
    if value.contains(", or") {
        return value.to_owned();
    }
    let value = value.trim_end_matches(" a second").replace(['`', ' '], "");
    let value = value.replace("1min", "1m");
    match value.strip_suffix(",000") {
        Some(thousands) => format!("{thousands}k"),
        None => value,
    }
}

/// The flags of `serve` that have a default.
fn defaults() -> BTreeMap<String, String> {
    let help = help("serve");
    let mut flag = String::new();
    let mut found = BTreeMap::new();
    for line in help.lines() {
        let text = line.trim();
        if let Some(name) = text
            .strip_prefix("--")
            .filter(|_| line.starts_with("      --"))
        {
            let end = name.find([' ', '[', '.']).unwrap_or(name.len());
            flag = format!("--{}", &name[..end]);
        }
        if let Some((_, default)) = text.split_once("[default: ") {
            found.insert(flag.clone(), default.trim_end_matches(']').to_owned());
        }
    }
    assert!(found.len() > 20, "too few defaults were found: {found:?}");
    found
}

#[test]
fn the_limits_of_the_guide_are_those_of_the_program() {
    let defaults = defaults();
    let operations = page("operations.md");
    let help = help("serve");
    let hardened = help.lines().skip_while(|line| !line.contains("--hardened"));
    let hardened: Vec<&str> = hardened
        .skip(3)
        .take_while(|line| !line.trim().is_empty())
        .flat_map(str::split_whitespace)
        .collect();
    let mut hardened: BTreeMap<String, &str> = hardened
        .chunks(2)
        .map(|pair| (pair[0].to_owned(), pair[1]))
        .collect();
    assert!(hardened.len() > 8, "{hardened:?}");
    for row in table(&operations, "flag") {
        let flags = quoted(&row[0]);
        for (place, flag) in flags.iter().enumerate() {
            let nth = |cell: &str| {
                let cells: Vec<&str> = cell.split(", ").collect();
                let one = if cells.len() == flags.len() {
                    cells[place]
                } else {
                    cell
                };
                as_in_help(one)
            };
            if let Some(default) = defaults.get(*flag) {
                assert_eq!(&nth(&row[1]), default, "{flag}");
            } else {
                let is_without = ["all", "off"].contains(&row[1].as_str());
                assert!(is_without, "{flag} has no default");
            }
            let kept = hardened.remove(*flag).unwrap_or_default();
            assert_eq!(nth(&row[2]), kept, "{flag} with --hardened");
        }
    }
    assert!(hardened.is_empty(), "the guide lacks {hardened:?}");
    for flag in defaults.keys() {
        let named = operations.contains(&format!("`{flag}"));
        assert!(named || flag == "--model", "the guide lacks {flag}");
    }
}

#[test]
fn the_exit_codes_of_the_guide_are_those_of_the_program() {
    let told = ended(program().arg("--help").env("COLUMNS", "1000"));
    // A meaning goes on below itself, where it is too long for 80 columns.
    let told = told.out.replace(&format!("\n{:19}", ""), "");
    let codes = told.lines().skip_while(|line| *line != "Exit codes:");
    let expected: Vec<Vec<String>> = codes
        .skip(1)
        .map_while(|line| {
            let (code, rest) = line.trim().split_once(' ')?;
            let (name, meaning) = rest.trim().split_once(' ')?;
            let row = [code, name, meaning.trim()];
            Some(row.map(str::to_owned).to_vec())
        })
        .collect();
    assert_eq!(expected.len(), 16);
    assert_eq!(table(&page("operations.md"), "code"), expected);
}

/// Flags of other programs that the pages name.
const FOREIGN_FLAGS: [&str; 15] = [
    "--bin",
    "--manifest-path",
    "--examples",
    "--example",
    "--release",
    "--open",
    "--target",
    "--features",
    "--no-default-features",
    "--test",
    "--nocapture",
    "--ulimit",
    "--memory",
    "--port",
    // Of the example `replay`.
    "--until",
];

#[test]
fn flags_that_the_pages_name_exist() {
    let mut known: String = [
        "serve", "send", "bench", "check", "compare", "diff", "doctor", "trace", "watch",
    ]
    .map(help)
    .concat();
    for script in sources("scripts") {
        known.push_str(&fs::read_to_string(script).unwrap_or_default());
    }
    let mut wrong = Vec::new();
    for (path, text) in pages() {
        for line in text.lines() {
            // The first column of the changelog's tables is what was before.
            let line = if path.ends_with("changelog.md") && line.starts_with('|') {
                line.splitn(3, '|').nth(2).unwrap()
            } else {
                line
            };
            for flag in
                line.split(|c: char| !(c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-'))
            {
                let is_flag = flag.len() > 3
                    && flag
                        .strip_prefix("--")
                        .is_some_and(|name| !name.starts_with('-'));
                if is_flag && !FOREIGN_FLAGS.contains(&flag) && !known.contains(flag) {
                    wrong.push(format!("{}: {flag}", path.display()));
                }
            }
        }
    }
    assert_eq!(wrong, Vec::<String>::new());
}
