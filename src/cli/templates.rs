//! How templates are filled in: those of reports as text, and those of pages.

use super::units::{grouped, plural};
use minijinja::syntax::SyntaxConfig;
use minijinja::{Environment, UndefinedBehavior};

/// For templates: HTML is escaped in those whose name says that they are HTML.
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
    environment.add_filter("grouped", grouped);
    environment.add_filter("plural", plural);
    Ok(environment)
}
