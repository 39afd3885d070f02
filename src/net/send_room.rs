//! How much the send buffer of a TCP socket has room for, as the kernel counts: `SO_MEMINFO`.
//!
//! The counts are those of ss(8) and sock_diag(7): `SK_MEMINFO_SNDBUF` is the size of the send buffer, which the kernel tunes,
//! `SK_MEMINFO_WMEM_QUEUED` what is in it, with the bookkeeping of each packet. Only acknowledgements change the second
//! between two calls, and they make room.

use std::os::fd::AsFd;

/// The counts of `SO_MEMINFO` (include/uapi/linux/sock_diag.h). Later kernels have added some at the end.
#[cfg(all(feature = "long-reads", target_os = "linux"))]
type Counts = [u32; 9];

#[cfg(all(feature = "long-reads", target_os = "linux"))]
#[derive(Clone, Copy, Debug)]
struct MemInfo;

#[cfg(all(feature = "long-reads", target_os = "linux"))]
nix::getsockopt_impl!(
    MemInfo,
    libc::SOL_SOCKET,
    libc::SO_MEMINFO,
    Counts,
    nix::sys::socket::sockopt::GetStruct<Counts>
);

/// Returns how many bytes the next send(2) takes at once, if the kernel has the memory: half of what the send buffer has
/// room for, since a small packet is counted with as much again. 0 if the kernel does not say (before Linux 4.12).
#[cfg(all(feature = "long-reads", target_os = "linux"))]
pub(super) fn send_room(socket: &impl AsFd) -> usize {
    let Ok(counts) = nix::sys::socket::getsockopt(socket, MemInfo) else {
        return 0;
    };
    let count = |index| counts[index as usize];
    let free = count(libc::SK_MEMINFO_SNDBUF).saturating_sub(count(libc::SK_MEMINFO_WMEM_QUEUED));
    free as usize / 2
}

/// Not known without the feature `long-reads`.
#[cfg(not(all(feature = "long-reads", target_os = "linux")))]
pub(super) fn send_room(_: &impl AsFd) -> usize {
    0
}

#[cfg(all(test, feature = "long-reads", target_os = "linux"))]
mod tests {
    use super::*;
    use std::io::{ErrorKind, Write};
    use std::net::{TcpListener, TcpStream};

    /// A peer that reads nothing: what is promised is taken, each time, until there is no room.
    #[test]
    fn what_there_is_room_for_is_taken_by_one_write() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut stream = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (_peer, _) = listener.accept().unwrap();
        stream.set_nonblocking(true).unwrap();
        let bytes = vec![b'x'; 1 << 20];
        let mut taken = 0;
        loop {
            let room = send_room(&stream).min(bytes.len());
            if room < 4096 {
                break;
            }
            assert_eq!(stream.write(&bytes[..room]).unwrap(), room);
            taken += room;
        }
        assert!(taken > 64 << 10, "{taken} bytes");
        while let Ok(count) = stream.write(&bytes) {
            assert_ne!(count, 0);
        }
        assert_eq!(
            stream.write(&bytes).unwrap_err().kind(),
            ErrorKind::WouldBlock
        );
        assert!(send_room(&stream) < 4096);
    }
}
