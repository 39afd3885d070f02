//! What the pages of reports have in common: the style, dates and command lines.
//!
//! A page is one file: it needs no network and no script, and its own policy forbids it to load or to run anything.

use super::templates;
use jiff::Timestamp;
use minijinja::Environment;

/// For templates of pages: `base` is the style, and `palette` the colors.
///
/// # Errors
/// The syntax that is asked for cannot be had.
pub(super) fn environment() -> Result<Environment<'static>, String> {
    let mut environment = templates::environment()?;
    environment.add_global("base", include_str!("page.css"));
    environment.add_global("palette", include_str!("../palette.css"));
    Ok(environment)
}

/// A time in seconds since 1970 as a date.
pub(super) fn date(unix: u64) -> String {
    let time = i64::try_from(unix).map(Timestamp::from_second);
    let time = time.ok().and_then(Result::ok);
    time.map_or(String::new(), |time| {
        time.strftime("%F %H:%M UTC").to_string()
    })
}

/// A command line as a shell takes it.
pub(super) fn command(words: &[String]) -> String {
    let words: Vec<String> = words.iter().map(|word| quoted(word)).collect();
    words.join(" ")
}

/// A word of a command line, so that a shell would read it as one.
fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_alphanumeric() || "-_./:=,@%+".contains(c);
    match !word.is_empty() && word.chars().all(plain) {
        true => word.to_owned(),
        false => format!("'{}'", word.replace('\'', "'\\''")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_of_a_shell() {
        let words = ["a b", "it's", "", "--plain=x"].map(quoted);
        assert_eq!(words, ["'a b'", "'it'\\''s'", "''", "--plain=x"]);
    }
}
