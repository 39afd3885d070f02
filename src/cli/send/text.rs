//! Hexadecimal digits, and the first difference of two texts.

use std::fmt::Write;

/// Reads hexadecimal digits, two for each byte; blanks between them are for the eye.
pub(super) fn from_hex(text: &[u8]) -> Result<Vec<u8>, String> {
    let digits = text
        .iter()
        .filter(|byte| !byte.is_ascii_whitespace())
        .map(|&byte| match char::from(byte).to_digit(16) {
            // A hexadecimal digit fits into a byte.
            Some(digit) => Ok(digit as u8),
            None => Err(format!(
                "'{}' is no digit; write 0 to 9 and a to f",
                byte.escape_ascii()
            )),
        })
        .collect::<Result<Vec<u8>, String>>()?;
    match digits.len() % 2 {
        0 => Ok(digits
            .chunks(2)
            .map(|pair| pair[0] << 4 | pair[1])
            .collect()),
        _ => Err("a byte has two digits, and one is missing".to_owned()),
    }
}

pub(super) fn to_hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// The first place at which the echo is not what was sent: its offset, with both bytes in words.
pub(super) fn first_difference(sent: &[u8], received: &[u8]) -> Option<(usize, String)> {
    let place = sent.iter().zip(received).position(|(a, b)| a != b)?;
    let byte = |byte: u8| format!("0x{byte:02x} ('{}')", byte.escape_ascii());
    let both = format!(
        "sent {}, received {}",
        byte(sent[place]),
        byte(received[place])
    );
    Some((place, both))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hexadecimal_goes_both_ways() {
        assert_eq!(from_hex(b"00 fF\t7a"), Ok(vec![0x00, 0xff, 0x7a]));
        assert_eq!(from_hex(b""), Ok(vec![]));
        assert_eq!(to_hex(&[0x00, 0xff, 0x7a]), "00ff7a");
        let all: Vec<u8> = (0..=255).collect();
        assert_eq!(from_hex(to_hex(&all).as_bytes()), Ok(all));
    }

    #[test]
    fn what_is_not_hexadecimal_is_named() {
        assert!(from_hex(b"0g").unwrap_err().contains("'g' is no digit"));
        assert!(from_hex(b"0x00").unwrap_err().contains("'x' is no digit"));
        assert!(from_hex(b"\xff0").unwrap_err().contains(r"'\xff'"));
        assert!(from_hex(b"000").unwrap_err().contains("one is missing"));
    }

    #[test]
    fn the_first_difference_has_its_place_and_both_bytes() {
        assert_eq!(first_difference(b"same", b"same"), None);
        assert_eq!(first_difference(b"longer", b"long"), None);
        let (place, both) = first_difference(b"Hello\n", b"HellO\x00").unwrap();
        assert_eq!(place, 4);
        assert_eq!(both, "sent 0x6f ('o'), received 0x4f ('O')");
    }
}
