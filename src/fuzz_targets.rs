//! Properties that must hold for any input bytes: one function for each target of the fuzzer, which are in `tests/fuzz/`.
//!
//! A fuzz target is one line that calls one of these functions; so the fuzzed code is compiled, linted and tested like
//! everything else. Inputs that the fuzzer found worth keeping are in `tests/corpus`, a folder for each target, and the
//! test below runs them all.
//!
//! Unpromised: public for cargo-fuzz; names and signatures may change in any release.
//!
//! ```sh
//! cargo install cargo-fuzz && cargo +nightly fuzz run --fuzz-dir tests/fuzz address -- -max_total_time=60
//! ```

use crate::net::escape::Escaped;
use crate::net::{Address, IpNet};
use crate::reactor::{Key, Readiness, Token};
use crate::simulation::choices::Choices;
use crate::simulation::script;
use std::fmt::Display;
use std::str::FromStr;

/// Checks that text which parses as a value prints as text which parses as the same value (unless characters are escaped
/// in print), and that the error of any other text is one line without control characters.
fn reads_and_prints<T: FromStr<Err: Display> + Display + PartialEq>(text: &str) {
    match text.parse::<T>() {
        Ok(value) => {
            let printed = value.to_string();
            let again = printed.parse::<T>().ok();
            let is_escaped = Escaped::new(text).to_string() != text;
            assert!(
                is_escaped || again == Some(value),
                "{text:?} prints as {printed:?}"
            );
            assert!(
                !printed.chars().any(char::is_control),
                "{text:?}: {printed:?}"
            );
        }
        Err(error) => {
            let message = error.to_string();
            assert!(
                !message.chars().any(char::is_control),
                "{text:?}: {message:?}"
            );
        }
    }
}

/// Socket addresses and network prefixes print as they parse.
pub fn address(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else {
        return;
    };
    reads_and_prints::<Address>(text);
    reads_and_prints::<IpNet>(text);
}

/// Counts, sizes, times, and the words that may replace them print as they parse.
#[cfg(feature = "cli")]
pub fn units(bytes: &[u8]) {
    use crate::cli::units::{Auto, Bytes, Count, Most, Off, Or, Time};

    let Ok(text) = std::str::from_utf8(bytes) else {
        return;
    };
    reads_and_prints::<Count>(text);
    reads_and_prints::<Bytes>(text);
    reads_and_prints::<Time>(text);
    reads_and_prints::<Or<Count, Most>>(text);
    reads_and_prints::<Or<Bytes, Auto>>(text);
    reads_and_prints::<Or<Time, Off>>(text);
}

/// A connection over a scripted socket keeps the invariants of [`script`]. The first byte selects the kind of socket,
/// each further byte the result of a call; scripts may be longer than the six calls that the tests enumerate.
pub fn connection(bytes: &[u8]) {
    let Some((kind, calls)) = bytes.split_first() else {
        return;
    };
    let readiness = match kind & 1 {
        0 => Readiness::Normal,
        _ => Readiness::Exceptional,
    };
    script::run(
        Choices::given(calls),
        readiness,
        kind & 2 != 0,
        kind & 4 != 0,
    );
}

/// Every token converts to a key and back without losing a bit.
pub fn key(bytes: &[u8]) {
    let Ok(number) = bytes.try_into().map(usize::from_le_bytes) else {
        return;
    };
    let key = Key::from_token(Token(number));
    assert_eq!(key.token(), Token(number));
}

/// A line from a worker of `bench` that parses as a message prints as a line that parses as the same message.
#[cfg(all(feature = "cli", feature = "bench"))]
pub fn wire(bytes: &[u8]) {
    use crate::cli::bench::ipc::{Message, read, write};

    let Some(message) = std::str::from_utf8(bytes).ok().and_then(read::<Message>) else {
        return;
    };
    let mut line = Vec::new();
    write(&message, &mut line);
    let again = std::str::from_utf8(&line).ok().and_then(read);
    assert_eq!(again, Some(message));
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::path::Path;

    /// Runs every stored input of one target.
    fn replay(target: &str, property: fn(&[u8])) {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("tests/corpus")
            .join(target);
        let mut count = 0;
        for entry in fs::read_dir(folder).unwrap() {
            property(&fs::read(entry.unwrap().path()).unwrap());
            count += 1;
        }
        assert!(count > 0, "{target} has no corpus");
        println!("{target}: {count} files");
    }

    #[test]
    fn properties_hold_for_every_stored_input() {
        replay("address", address);
        replay("connection", connection);
        replay("key", key);
        #[cfg(feature = "cli")]
        replay("units", units);
        #[cfg(all(feature = "cli", feature = "bench"))]
        replay("wire", wire);
    }
}
