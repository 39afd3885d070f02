//! What is wrong with a header.

use std::fmt;

/// Why bytes are no header of the PROXY protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HeaderError {
    /// They begin with neither `PROXY ` nor the signature of version 2.
    Signature,
    /// The line has a CR or LF by itself.
    LineEnd,
    /// There is no CRLF in the longest line that there is.
    LongLine,
    /// The line is of a family other than `TCP4`, `TCP6` and `UNKNOWN`.
    LineFamily,
    /// The line has more or fewer fields than it should have, or more than one space between two.
    Fields,
    /// The source is no address of its family.
    Source,
    /// The destination is no address of its family.
    Destination,
    /// A port is no number from 0 to 65535.
    Port,
    /// The version is another one than 2.
    Version,
    /// The command is neither `LOCAL` nor `PROXY`.
    Command,
    /// The address family is unknown.
    Family,
    /// The transport protocol is unknown.
    Transport,
    /// The length leaves too little room for the addresses of the family.
    ShortAddresses,
    /// The length is beyond the bound.
    LongHeader,
}

impl fmt::Display for HeaderError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = match self {
            Self::Signature => "it begins like neither version of the protocol",
            Self::LineEnd => "its line has a CR or an LF alone",
            Self::LongLine => "its first 107 bytes have no CRLF",
            Self::LineFamily => "its family is none of TCP4, TCP6 and UNKNOWN",
            Self::Fields => "its line has not two addresses and two ports, one space apart",
            Self::Source => "its source is not an address of its family",
            Self::Destination => "its destination is not an address of its family",
            Self::Port => "one of its ports is not a number from 0 to 65535",
            Self::Version => "its version is not 2",
            Self::Command => "its command is neither LOCAL nor PROXY",
            Self::Family => "its address family is unknown",
            Self::Transport => "its transport protocol is unknown",
            Self::ShortAddresses => "its length is too short for the addresses of its family",
            Self::LongHeader => "it is longer than 4096 bytes",
        };
        f.write_str(text)
    }
}

impl std::error::Error for HeaderError {}
