//! Every example of the specification, and headers that are malformed in one place each.

use super::*;

fn peer(text: &str) -> Peer {
    match text.parse() {
        Ok(address) => Peer::Ip(address),
        Err(_) => panic!("{text} is no address"),
    }
}

fn proxied(source: &str, destination: &str) -> Header {
    Header::Proxied {
        source: peer(source),
        destination: peer(destination),
    }
}

/// A header of version 2 with these bytes behind its signature.
fn binary(version_and_command: u8, family: u8, length: u16, block: &[u8]) -> Vec<u8> {
    let length = length.to_be_bytes();
    [SIGNATURE, &[version_and_command, family], &length, block].concat()
}

/// Checks that this header is recognised with its last byte, at the same place whatever follows.
#[track_caller]
fn accepts(bytes: &[u8], expected: &Header) {
    for length in 0..bytes.len() {
        assert_eq!(Header::parse(&bytes[..length]), Ok(None), "{length} bytes");
    }
    for behind in [&b""[..], b"GET / HTTP/1.1\r\n", b"\0", b"\r\n", b"\n"] {
        let all = [bytes, behind].concat();
        let expected = Ok(Some((expected.clone(), bytes.len())));
        assert_eq!(Header::parse(&all), expected, "{}", all.escape_ascii());
    }
}

/// Checks that these bytes are refused by their last one, for this reason.
#[track_caller]
fn refuses(bytes: &[u8], expected: HeaderError) {
    let (_, before) = bytes.split_last().unwrap();
    let shown = bytes.escape_ascii();
    assert_eq!(Header::parse(before), Ok(None), "{shown}");
    assert_eq!(Header::parse(bytes), Err(expected), "{shown}");
    assert_eq!(Header::parse(&[bytes, b"\r\n"].concat()), Err(expected));
    let text = expected.to_string();
    assert!(!text.is_empty() && !text.contains('\n'), "{text}");
}

// ---- the examples of the specification ----

#[test]
fn lines_of_the_specification() {
    accepts(
        b"PROXY TCP4 192.168.0.1 192.168.0.11 56324 443\r\n",
        &proxied("192.168.0.1:56324", "192.168.0.11:443"),
    );
    let longest = b"PROXY TCP4 255.255.255.255 255.255.255.255 65535 65535\r\n";
    assert_eq!(longest.len(), 56);
    accepts(
        longest,
        &proxied("255.255.255.255:65535", "255.255.255.255:65535"),
    );
    let ones = "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff";
    let longest = format!("PROXY TCP6 {ones} {ones} 65535 65535\r\n");
    assert_eq!(longest.len(), 104);
    let address = format!("[{ones}]:65535");
    accepts(longest.as_bytes(), &proxied(&address, &address));
    accepts(b"PROXY UNKNOWN\r\n", &Header::Local);
    let longest = format!("PROXY UNKNOWN {ones} {ones} 65535 65535\r\n");
    assert_eq!(longest.len(), LINE_BYTES_MAX);
    accepts(longest.as_bytes(), &Header::Local);
}

#[test]
fn binary_headers_of_the_specification() {
    let ipv4 = [192, 168, 0, 1, 192, 168, 0, 11, 0xdc, 0x04, 0x01, 0xbb];
    let declared = proxied("192.168.0.1:56324", "192.168.0.11:443");
    for family in [0x11, 0x12] {
        accepts(&binary(0x21, family, 12, &ipv4), &declared);
    }
    let (mut source, mut destination) = ([0; 16], [0; 16]);
    source[..4].copy_from_slice(&[0x20, 0x01, 0x0d, 0xb8]);
    (source[15], destination[15]) = (1, 1);
    let ipv6 = [&source[..], &destination, &ipv4[8..]].concat();
    assert_eq!(ipv6.len(), 36);
    for family in [0x21, 0x22] {
        let declared = proxied("[2001:db8::1]:56324", "[::1]:443");
        accepts(&binary(0x21, family, 36, &ipv6), &declared);
    }
    let mut unix = [0; 216];
    unix[..9].copy_from_slice(b"/run/a.so");
    unix[108..113].copy_from_slice(b"\0name");
    for family in [0x31, 0x32] {
        let declared = Header::Proxied {
            source: Peer::Unix(UnixName::Path("/run/a.so".into())),
            destination: Peer::Unix(UnixName::Abstract("name".to_owned())),
        };
        accepts(&binary(0x21, family, 216, &unix), &declared);
    }
    // A health check has no addresses; the length counts all the same, and so does any family.
    accepts(&binary(0x20, 0x00, 0, b""), &Header::Local);
    accepts(&binary(0x20, 0x00, 3, b"\x04\0\0"), &Header::Local);
    accepts(&binary(0x20, 0x11, 12, &ipv4), &Header::Local);
    accepts(&binary(0x20, 0xff, 0, b""), &Header::Local);
    // A client of an unknown protocol: the address information is ignored.
    for family in [0x00, 0x01, 0x02, 0x10, 0x20, 0x30] {
        accepts(&binary(0x21, family, 12, &ipv4), &Header::Local);
    }
}

/// Every registered type, one TLV each, and blocks that are none: all are skipped by the length of the header.
#[test]
fn what_follows_the_addresses_is_skipped() {
    let addresses = [10, 0, 0, 1, 10, 0, 0, 2, 0, 1, 0, 2];
    let declared = proxied("10.0.0.1:1", "10.0.0.2:2");
    let types = [
        0x01, 0x02, 0x03, 0x04, 0x05, 0x20, 0x21, 0x22, 0x23, 0x24, 0x25, 0x30, 0xe0, 0xef, 0xf0,
        0xf7, 0xf8, 0xff,
    ];
    for kind in types {
        let block = [&addresses[..], &[kind, 0, 4], b"\r\n\0x"].concat();
        accepts(&binary(0x21, 0x11, 19, &block), &declared);
    }
    for garbage in [&b"\xff"[..], b"\x03\xff\xff", &[b'x'; 300]] {
        let block = [&addresses[..], garbage].concat();
        accepts(&binary(0x21, 0x11, block.len() as u16, &block), &declared);
    }
    let longest = HEADER_BYTES_MAX - FIXED_BYTES;
    let block = [&addresses[..], &vec![0; longest - 12]].concat();
    accepts(&binary(0x21, 0x11, longest as u16, &block), &declared);
}

#[test]
fn addresses_are_taken_in_every_form_that_a_sender_may_print() {
    for (source, expected) in [
        ("::1", "[::1]:1"),
        ("2001:DB8::A", "[2001:db8::a]:1"),
        ("0001:2:3:4:5:6:7:0008", "[1:2:3:4:5:6:7:8]:1"),
        ("::", "[::]:1"),
        ("::ffff:192.0.2.1", "192.0.2.1:1"),
        ("::ffff:c000:201", "192.0.2.1:1"),
    ] {
        let line = format!("PROXY TCP6 {source} ::2 1 0\r\n");
        accepts(line.as_bytes(), &proxied(expected, "[::2]:0"));
    }
    for ignored in [" ", " x", "  \n\r \r\r", " TCP4 1.2.3.4", " \0é"] {
        accepts(
            format!("PROXY UNKNOWN{ignored}\r\n").as_bytes(),
            &Header::Local,
        );
    }
}

#[test]
fn names_of_unix_sockets_fill_their_field_or_end_at_a_nul() {
    let name = |bytes: &[u8]| {
        let mut field = [0; UNIX_NAME_BYTES];
        field[..bytes.len()].copy_from_slice(bytes);
        unix_peer(&field)
    };
    let path = |text: &str| Peer::Unix(UnixName::Path(text.into()));
    assert_eq!(name(b""), Peer::Unnamed);
    assert_eq!(name(b"/a\0rest"), path("/a"));
    assert_eq!(name(&[b'x'; 108]), path(&"x".repeat(108)));
    let long = [&b"\0"[..], &[b'x'; 107]].concat();
    let longest = UnixName::Abstract("x".repeat(107));
    assert_eq!(name(&long), Peer::Unix(longest));
    let inner = UnixName::Abstract("a\0b".to_owned());
    assert_eq!(name(b"\0a\0b"), Peer::Unix(inner));
}

// ---- malformed ----

#[test]
fn lines_that_are_malformed() {
    use HeaderError as Error;
    let after = |start: &str, rest: &str| format!("PROXY {start}{rest}").into_bytes();
    for (line, expected) in [
        (" TCP4 1.2.3.4 1.2.3.4 1 2\r\n", Error::LineFamily),
        ("TCP 1.2.3.4 1.2.3.4 1 2\r\n", Error::LineFamily),
        ("tcp4 1.2.3.4 1.2.3.4 1 2\r\n", Error::LineFamily),
        ("UDP4 1.2.3.4 1.2.3.4 1 2\r\n", Error::LineFamily),
        ("UNKNOWNS\r\n", Error::LineFamily),
        ("UNKNOW\r\n", Error::LineFamily),
        ("\r\n", Error::LineFamily),
        ("TCP4\r\n", Error::Fields),
        ("TCP4 1.2.3.4 1.2.3.4 1\r\n", Error::Fields),
        ("TCP4 1.2.3.4 1.2.3.4 1 2 \r\n", Error::Fields),
        ("TCP4 1.2.3.4 1.2.3.4 1 2 3\r\n", Error::Fields),
        ("TCP4  1.2.3.4 1.2.3.4 1 2\r\n", Error::Fields),
        ("TCP4\t1.2.3.4 1.2.3.4 1 2\r\n", Error::LineFamily),
        ("TCP4 ::1 1.2.3.4 1 2\r\n", Error::Source),
        ("TCP4 1.2.3 1.2.3.4 1 2\r\n", Error::Source),
        ("TCP4 1.2.3.256 1.2.3.4 1 2\r\n", Error::Source),
        ("TCP4 01.2.3.4 1.2.3.4 1 2\r\n", Error::Source),
        ("TCP4 1.2.3.4\0 1.2.3.4 1 2\r\n", Error::Source),
        ("TCP4  1.2.3.4 1 2\r\n", Error::Source),
        ("TCP4 1.2.3.4 1.2.3.04 1 2\r\n", Error::Destination),
        ("TCP6 ::1 1.2.3.4 1 2\r\n", Error::Destination),
        ("TCP6 fe80::1%lo ::1 1 2\r\n", Error::Source),
        ("TCP6 1::2::3 ::1 1 2\r\n", Error::Source),
        ("TCP6 12345::1 ::1 1 2\r\n", Error::Source),
        ("TCP6 1:2:3:4:5:6:7:8:9 ::1 1 2\r\n", Error::Source),
        ("TCP4 1.2.3.4 1.2.3.4 65536 2\r\n", Error::Port),
        ("TCP4 1.2.3.4 1.2.3.4 1 -2\r\n", Error::Port),
        ("TCP4 1.2.3.4 1.2.3.4 +1 2\r\n", Error::Port),
        ("TCP4 1.2.3.4 1.2.3.4 01 2\r\n", Error::Port),
        ("TCP4 1.2.3.4 1.2.3.4 00 2\r\n", Error::Port),
        ("TCP4 1.2.3.4 1.2.3.4 1 \r\n", Error::Port),
        ("TCP4 1.2.3.4 1.2.3.4 1 2\n", Error::LineEnd),
        ("TCP4 1.2.3.4 1.2.3.4 1 2\rx", Error::LineEnd),
        ("TCP4 1.2.3.4 1.2.3.4 1 2\r\r", Error::LineEnd),
        ("TCP4\n", Error::LineEnd),
    ] {
        refuses(&after(line, ""), expected);
    }
    for start in ["TCP4 ", "UNKNOWN "] {
        let rest = "x".repeat(LINE_BYTES_MAX - 6 - start.len());
        refuses(&after(start, &rest), Error::LongLine);
    }
    for bytes in [&b"GET / HTTP/1.1\r\n"[..], b"\0", b"\xff", b"\n", b" PROXY"] {
        refuses(&bytes[..1], Error::Signature);
    }
    for bytes in ["PROXX", "PRI", "PROXY\r", "PROXY\t", "Pr"] {
        refuses(bytes.as_bytes(), Error::Signature);
    }
}

#[test]
fn binary_headers_that_are_malformed() {
    use HeaderError as Error;
    for place in 1..SIGNATURE.len() {
        let mut wrong = SIGNATURE[..=place].to_vec();
        wrong[place] ^= 0x20;
        refuses(&wrong, Error::Signature);
    }
    let start = |bytes: &[u8]| [SIGNATURE, bytes].concat();
    for version in (0x00..=0xff).filter(|byte| byte >> 4 != 2) {
        refuses(&start(&[version]), Error::Version);
    }
    for command in 0x22..=0x2f {
        refuses(&start(&[command]), Error::Command);
    }
    for family in 0x00..=0xff {
        match (family >> 4, family & 0x0f) {
            (_, 3..) => refuses(&start(&[0x21, family]), Error::Transport),
            (4.., _) => refuses(&start(&[0x21, family]), Error::Family),
            _ => {}
        }
    }
    for (family, length) in [
        (0x11, 12_u16),
        (0x12, 12),
        (0x21, 36),
        (0x22, 36),
        (0x31, 216),
    ] {
        for short in [0, 1, length - 1] {
            let [high, low] = short.to_be_bytes();
            refuses(&start(&[0x21, family, high, low]), Error::ShortAddresses);
        }
    }
    for family in [0x20, 0x21] {
        let [high, low] = ((HEADER_BYTES_MAX - FIXED_BYTES + 1) as u16).to_be_bytes();
        refuses(&start(&[family, 0x00, high, low]), Error::LongHeader);
        refuses(&start(&[family, 0x00, 0xff, 0xff]), Error::LongHeader);
    }
}

#[test]
fn errors_name_the_bounds() {
    for (error, bound) in [
        (HeaderError::LongLine, LINE_BYTES_MAX),
        (HeaderError::LongHeader, HEADER_BYTES_MAX),
    ] {
        assert!(error.to_string().contains(&bound.to_string()));
    }
}

// ---- writing ----

#[test]
fn a_header_that_is_written_is_read_back() {
    let pairs = [
        ("192.0.2.1:1", "198.51.100.255:65535"),
        ("[2001:db8::1]:0", "[::1]:443"),
        ("192.0.2.1:1", "[2001:db8::1]:2"),
        ("[2001:db8::1]:2", "192.0.2.1:1"),
    ];
    for (source, destination) in pairs {
        let header = proxied(source, destination);
        accepts(&header.to_bytes(Version::V1), &header);
        accepts(&header.to_bytes(Version::V2), &header);
    }
    accepts(&Header::Local.to_bytes(Version::V1), &Header::Local);
    accepts(&Header::Local.to_bytes(Version::V2), &Header::Local);
    let unix = Header::Proxied {
        source: Peer::Unnamed,
        destination: Peer::Unix(UnixName::Path("/run/echo.sock".into())),
    };
    accepts(&unix.to_bytes(Version::V1), &Header::Local);
    accepts(&unix.to_bytes(Version::V2), &unix);
    let mixed = Header::Proxied {
        source: peer("192.0.2.1:1"),
        destination: Peer::Unnamed,
    };
    accepts(&mixed.to_bytes(Version::V2), &Header::Local);
    let long = Header::Proxied {
        source: Peer::Unix(UnixName::Path("x".repeat(109).into())),
        destination: Peer::Unnamed,
    };
    let empty = Header::Proxied {
        source: Peer::Unnamed,
        destination: Peer::Unnamed,
    };
    accepts(&long.to_bytes(Version::V2), &empty);
}
