//! One vocabulary: the words of a private picture stand nowhere. `scripts/language --show` prints each place.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// Files that are read: sources, documentation, scripts. Recorded inputs and results are not.
fn files(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap().map(Result::unwrap) {
        let path = entry.path();
        let name = entry.file_name().to_string_lossy().into_owned();
        if path.is_dir() {
            if !matches!(name.as_str(), "corpus" | "target" | "artifacts") {
                files(&path, found);
            }
        } else if matches!(
            path.extension().and_then(|extension| extension.to_str()),
            None | Some("rs" | "md" | "py" | "sh" | "patch")
        ) {
            found.push(path);
        }
    }
}

/// The words of a text in lower case; snake_case and CamelCase are taken apart.
fn words(text: &str) -> impl Iterator<Item = String> {
    text.split(|letter: char| !letter.is_ascii_alphabetic())
        .flat_map(|part| {
            let mut words = vec![String::new()];
            let mut previous = 'A';
            for letter in part.chars() {
                if letter.is_ascii_uppercase() && previous.is_ascii_lowercase() {
                    words.push(String::new());
                }
                words
                    .last_mut()
                    .expect("there is one")
                    .push(letter.to_ascii_lowercase());
                previous = letter;
            }
            words
        })
        .filter(|word| !word.is_empty())
}

#[test]
fn the_vocabulary_is_that_of_the_man_pages() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let list = root.join("tests/it/banned_words.txt");
    let listed = fs::read_to_string(&list).unwrap();
    let banned: BTreeSet<&str> = listed
        .lines()
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
        .collect();
    assert!(banned.len() > 20, "the list is read");
    let mut read = vec![root.join("README.md")];
    for folder in ["src", "tests", "benches", "scripts"] {
        files(&root.join(folder), &mut read);
    }
    let mut found = Vec::new();
    for path in read {
        // The one names some of them, to look for them; in the other a license is quoted.
        if ["scripts/language", "scripts/deploy/debian/copyright"]
            .iter()
            .any(|name| path == root.join(name))
        {
            continue;
        }
        let Ok(text) = fs::read_to_string(&path) else {
            continue;
        };
        for (number, line) in text.lines().enumerate() {
            let place = path.strip_prefix(root).unwrap().display();
            found.extend(
                words(line)
                    .filter(|word| banned.contains(word.as_str()))
                    .map(|word| format!("{place}:{}: {word}", number + 1)),
            );
        }
    }
    assert_eq!(found, Vec::<String>::new());
}
