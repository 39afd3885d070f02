//! The Unix sockets of this network namespace.

use std::fs;

/// The abstract names of bound datagram sockets, without the leading NUL byte. Empty where there is no /proc.
pub(crate) fn abstract_datagram_names() -> Vec<String> {
    names(&fs::read_to_string("/proc/net/unix").unwrap_or_default())
}

/// The columns of a line are: number, references, protocol, flags, type (2 is SOCK_DGRAM), state, inode and name, in which `@`
/// stands for NUL.
fn names(table: &str) -> Vec<String> {
    let name = |line: &str| {
        let mut columns = line.split_whitespace();
        let is_datagram = columns.nth(4)? == "0002";
        let name = columns.nth(2)?.strip_prefix('@')?;
        is_datagram.then(|| name.to_owned())
    };
    table.lines().filter_map(name).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn abstract_names_of_datagram_sockets_are_found() {
        let table = "Num       RefCount Protocol Flags    Type St Inode Path\n\
            0000: 00000002 00000000 00000000 0002 01 11 @echo-reactor.42\n\
            0000: 00000002 00000000 00010000 0001 01 12 @stream\n\
            0000: 00000002 00000000 00000000 0002 01 13 /run/a\n\
            0000: 00000002 00000000 00000000 0002 01 14\n";
        assert_eq!(names(table), ["echo-reactor.42"]);
    }
}
