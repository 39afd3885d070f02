//! What the pages and texts of reports have in common: how templates are filled in, the style, dates and command lines.
//!
//! A page is one file: it needs no network and no script, and its own policy forbids it to load or to run anything.

use super::units::plural;
use jiff::Timestamp;
use minijinja::syntax::SyntaxConfig;
use minijinja::{Environment, UndefinedBehavior};

/// For templates: HTML is escaped in those whose name says that they are HTML. `base` is the style of a page.
///
/// # Errors
/// The syntax that is asked for cannot be had.
pub(super) fn environment() -> Result<Environment<'static>, String> {
    // A line with nothing but a block of the template is none of the text.
    let syntax = SyntaxConfig::builder()
        .trim_blocks(true)
        .lstrip_blocks(true)
        .keep_trailing_newline(true)
        .build();
    let mut environment = Environment::new();
    environment.set_syntax(syntax.map_err(|error| error.to_string())?);
    environment.set_undefined_behavior(UndefinedBehavior::Strict);
    environment.add_filter("plural", plural);
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
