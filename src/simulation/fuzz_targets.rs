//! Properties that must hold for any input bytes: one function for each target of the fuzzer, which is in `fuzz/`.
//!
//! A target there is one line, which calls one of these functions; so the fuzzed code is compiled, linted and tested
//! like everything else. Inputs that the fuzzer found worth keeping are in `tests/corpus`, a folder for each target,
//! and the ordinary tests run them all. What may live in this file: such functions, and that test.
//!
//! ```sh
//! cargo install cargo-fuzz && cargo +nightly fuzz run address -- -max_total_time=60
//! ```

use super::choices::Choices;
use super::script;
use crate::net::escape::Escaped;
use crate::net::{Address, IpNet};
use crate::reactor::{Key, Readiness, Token};
use std::fmt::Display;
use std::str::FromStr;

/// What reads as a value prints as one that reads as the same, unless it has characters that are escaped in print; what
/// does not is told on one line that has no control characters in it.
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
            let told = error.to_string();
            assert!(!told.chars().any(char::is_control), "{text:?}: {told:?}");
        }
    }
}

/// Addresses of sockets, and prefixes of networks.
pub fn address(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else {
        return;
    };
    reads_and_prints::<Address>(text);
    reads_and_prints::<IpNet>(text);
}

/// Counts, bytes, times, and the words that may stand for them.
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

/// One connection over a scripted socket: the first byte chooses the kind of socket, every other one the result of a
/// call. The properties are those of [`script`], which tries all scripts of six calls; these may be longer.
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

/// A token of the kernel becomes a key and a key a token, and no bit is lost on the way, whatever it was.
pub fn key(bytes: &[u8]) {
    let Ok(number) = bytes.try_into().map(usize::from_le_bytes) else {
        return;
    };
    let key = Key::from_token(Token(number));
    assert_eq!(key.token(), Token(number));
}

/// A line from a worker of `bench`: a line that parses as a message prints as a line that parses as the same message.
#[cfg(all(feature = "cli", feature = "bench"))]
pub fn wire(bytes: &[u8]) {
    use crate::cli::bench::ipc::{message_from, message_to_json};

    let Some(message) = std::str::from_utf8(bytes).ok().and_then(message_from) else {
        return;
    };
    let line = message_to_json(&message).to_string();
    let again = message_from(&line).map(|message| message_to_json(&message).to_string());
    assert_eq!(again, Some(line));
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::path::Path;

    /// Runs every input that was kept for one target.
    fn replay(target: &str, law: fn(&[u8])) {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("tests/corpus")
            .join(target);
        let mut count = 0;
        for entry in fs::read_dir(folder).unwrap() {
            law(&fs::read(entry.unwrap().path()).unwrap());
            count += 1;
        }
        assert!(count > 0, "{target} has no corpus");
        println!("{target}: {count} files");
    }

    #[test]
    fn every_kept_input_holds() {
        replay("address", address);
        replay("connection", connection);
        replay("key", key);
        #[cfg(feature = "cli")]
        replay("units", units);
        #[cfg(all(feature = "cli", feature = "bench"))]
        replay("wire", wire);
    }
}
