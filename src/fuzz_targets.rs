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
use crate::net::proxy::{HEADER_BYTES_MAX, Header, Version};
use crate::net::{Address, IpNet, Peer};
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
        if kind & 8 == 0 { 0 } else { usize::MAX },
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

/// Longest start of a PROXY header that is tried byte by byte (bytes): more than the longest line, and than all of version 2
/// that decides anything.
const STARTS_MAX: usize = 128;

/// A PROXY header has one meaning however its bytes are cut: a start of it is either incomplete, or as the whole. It has a
/// bound, and what it declares is read back from what is written of it.
pub fn proxy(bytes: &[u8]) {
    let whole = Header::parse(bytes);
    for length in 0..bytes.len().min(STARTS_MAX) {
        let start = Header::parse(&bytes[..length]);
        assert!(start == Ok(None) || start == whole, "{length}: {start:?}");
    }
    match whole {
        Ok(None) => assert!(bytes.len() < HEADER_BYTES_MAX),
        Ok(Some((header, length))) => {
            assert!((1..=HEADER_BYTES_MAX.min(bytes.len())).contains(&length));
            assert_eq!(Header::parse(&bytes[..length - 1]), Ok(None));
            is_read_back(&header);
        }
        Err(error) => assert!(!error.to_string().contains(char::is_control)),
    }
}

/// Unix names are not among these: version 1 has none, and one that is no UTF-8 is replaced by a longer one.
fn is_read_back(header: &Header) {
    let is_of_ip = match header {
        Header::Local => true,
        Header::Proxied { source, .. } => matches!(source, Peer::Ip(_)),
    };
    for version in [Version::V1, Version::V2] {
        let written = header.to_bytes(version);
        match Header::parse(&written) {
            Ok(Some((read, length))) => {
                assert_eq!(length, written.len());
                assert!(!is_of_ip || read == *header, "{header:?} became {read:?}");
            }
            other => panic!("{header:?} became {other:?}"),
        }
    }
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
    use crate::random::Random;
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
        replay("proxy", proxy);
        #[cfg(feature = "cli")]
        replay("units", units);
        #[cfg(all(feature = "cli", feature = "bench"))]
        replay("wire", wire);
    }

    /// Headers with a few bytes changed, as a fuzzer that knows the format makes them.
    #[test]
    fn headers_that_are_changed_keep_the_properties_too() {
        let line = b"PROXY TCP6 ::ffff:192.0.2.1 2001:db8::1 56324 443\r\nbytes behind";
        let binary = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x10\xc0\0\x02\x01\xc6\x33\x64\x01\xdc\x04\x01\xbb\x04\0\x01xbehind";
        let common = b"PROXYTCPUNKNW 0123456789.:abcdef\r\n\0\x20\x21\x11\x31\xff";
        let mut random = Random::new(20);
        for round in 0..100_000 {
            let mut bytes = match round % 2 {
                0 => line.to_vec(),
                _ => binary.to_vec(),
            };
            for _ in 0..1 + random.below(4) {
                let (place, byte) = (random.below(bytes.len()), random.below(common.len()));
                match random.below(4) {
                    0 => bytes.insert(place, common[byte]),
                    1 if bytes.len() > 1 => drop(bytes.remove(place)),
                    2 => bytes.truncate(place.max(1)),
                    _ => bytes[place] = common[byte],
                }
            }
            proxy(&bytes);
        }
    }
}
