//! Text from outside, made safe to print.
//!
//! The name of a peer's Unix socket, the name of a file, and messages of a resolver come from outside. Printed raw, a
//! newline forges a line of a log, ESC and the C1 controls command the terminal, and a bidirectional override shows a text
//! that is not there. Every module that prints such text writes it through [`Escaped`]; the program's log escapes every
//! line once more. Escaping is idempotent, since the characters of an escape sequence are left unchanged.

use std::fmt::{self, Write};

/// Displays text or bytes as one line of visible characters.
///
/// Escaped are controls (C0, DEL, C1), format characters (bidirectional controls, zero-width characters, tags), line and
/// paragraph separators, blanks other than the space, private and unassigned characters, and combining marks; bytes that
/// are not UTF-8 appear as `\xff`. Quotes and backslashes stay, so that escaping twice is escaping once.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Escaped<'a>(&'a [u8]);

impl<'a> Escaped<'a> {
    /// Wraps a `str`, bytes, or the bytes of an `OsStr`.
    #[must_use]
    pub(crate) fn new(text: &'a (impl AsRef<[u8]> + ?Sized)) -> Self {
        Self(text.as_ref())
    }
}

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for chunk in self.0.utf8_chunks() {
            for c in chunk.valid().chars() {
                match c {
                    ' '..='~' => f.write_char(c)?,
                    // Unchanged if it is visible.
                    _ => write!(f, "{}", c.escape_debug())?,
                }
            }
            write!(f, "{}", chunk.invalid().escape_ascii())?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn controls_and_invisible_characters_are_escaped() {
        let hidden = (0..=0x1f)
            .chain(0x7f..=0x9f)
            .chain([0xa0, 0xad, 0x61c, 0x180e, 0x2028, 0x2029, 0xfeff])
            .chain((0x200b..=0x200f).chain(0x202a..=0x202e))
            .chain((0x2060..=0x2069).chain([0xfff9, 0xe000, 0xe0041]));
        for c in hidden.filter_map(char::from_u32) {
            let text = Escaped::new(c.encode_utf8(&mut [0; 4])).to_string();
            assert!(
                text.bytes().all(|byte| (0x20..0x7f).contains(&byte)),
                "{c:?}"
            );
            assert!(text.starts_with('\\'), "{c:?} is {text:?}");
        }
    }

    #[test]
    fn visible_text_is_unchanged_and_escaping_is_idempotent() {
        let visible = r#"/tmp/it's a "name" \ é 名 ✓ µ"#;
        assert_eq!(Escaped::new(visible).to_string(), visible);
        let once = Escaped::new(b"a\r\n\x9b\xc2\x9b\xe2\x80\xae\xf0\x9f").to_string();
        assert_eq!(once, r"a\r\n\x9b\u{9b}\u{202e}\xf0\x9f");
        assert_eq!(Escaped::new(&once).to_string(), once);
    }
}
