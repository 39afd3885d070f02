//! Several sockets at one address, among which the kernel divides connections and datagrams (SO_REUSEPORT of socket(7)).
//!
//! The kernel chooses a socket by a hash of both addresses and ports, once for each connection (at its SYN) and for each
//! datagram. Each listener has an accept queue of its own. A queued connection stays in it until it is accepted or the
//! last descriptor of the listener is closed, which resets it.
//!
//! SO_REUSEPORT lets any socket of the same user join, a second server that was started by mistake too, and that server
//! would then get a part of the connections. So the first socket is bound without it, which fails if any other socket has
//! the address. The option is set on it afterwards, and the rest are bound beside it.
//!
//! A limit for each source can be kept by one socket alone if all of a source comes to it. For that, [`steer_by_source`]
//! replaces the kernel's hash by a program of classic BPF (SO_ATTACH_REUSEPORT_CBPF), which hashes the source's prefix.

use super::address::Endpoint;
use super::bind::{BindOptions, BoundSocket};
use std::io;

impl BoundSocket {
    /// Binds sockets to the address of this one until there are `count` with it. This one must be TCP or UDP, and bound by
    /// this process without SO_REUSEPORT.
    ///
    /// # Errors
    /// Those of socket(2), setsockopt(2), bind(2) and listen(2).
    pub(crate) fn into_group(self, count: usize, options: &BindOptions) -> io::Result<Vec<Self>> {
        self.socket.set_reuse_port(true)?;
        let options = BindOptions {
            reuse_port: true,
            ..options.clone()
        };
        let endpoint = self.endpoint.clone();
        let mut group = vec![self];
        while group.len() < count {
            group.push(Self::bind_and_listen(&endpoint, &options)?);
        }
        Ok(group)
    }

    /// Whether sockets of one address can divide connections or datagrams between them.
    pub(crate) fn can_be_grouped(&self) -> bool {
        matches!(self.endpoint, Endpoint::Tcp(_) | Endpoint::Udp(_))
    }
}

/// Has the kernel choose the socket of a group by a hash of the source's prefix alone, of this many bits of an IPv4 and of an
/// IPv6 address. The sockets of two groups of one size get the same prefixes, each at its place in the group.
///
/// # Errors
/// Those of setsockopt(2); `Unsupported` where it is not Linux.
pub(crate) fn steer_by_source(group: &[BoundSocket], ipv4: u8, ipv6: u8) -> io::Result<()> {
    #[cfg(target_os = "linux")]
    return steer(group, ipv4, ipv6);
    #[cfg(not(target_os = "linux"))]
    {
        let _ = (group, ipv4, ipv6);
        Err(io::ErrorKind::Unsupported.into())
    }
}

#[cfg(target_os = "linux")]
fn steer(group: &[BoundSocket], ipv4: u8, ipv6: u8) -> io::Result<()> {
    use nix::sys::socket::{setsockopt, sockopt};
    let Some(first) = group.first() else {
        return Ok(());
    };
    let mut filter = program(group.len() as u32, ipv4, ipv6);
    let program = libc::sock_fprog {
        len: filter.len() as u16,
        filter: filter.as_mut_ptr(),
    };
    setsockopt(&first.socket, sockopt::AttachReusePortCbpf, &program)?;
    Ok(())
}

/// Offsets from here on count from the IP header.
#[cfg(target_os = "linux")]
const IP_HEADER: u32 = libc::SKF_NET_OFF as u32;

/// The program that returns the place in a group of `count` sockets (bpf(4) of BSD; networking/filter.rst of Linux).
#[cfg(target_os = "linux")]
fn program(count: u32, ipv4: u8, ipv6: u8) -> Vec<libc::sock_filter> {
    use libc::{
        BPF_A, BPF_ABS, BPF_ALU, BPF_AND, BPF_B, BPF_JEQ, BPF_JMP, BPF_K, BPF_LD, BPF_MISC,
        BPF_MOD, BPF_MUL, BPF_RET, BPF_RSH, BPF_TAX, BPF_W, BPF_X, BPF_XOR,
    };
    /// 2^32 divided by the golden ratio: multiplying by it spreads neighbours over all bits (Knuth).
    const SPREAD: u32 = 0x9e37_79b9;
    // The parts of a code have no bit in common (linux/bpf_common.h), so that their sum is the code.
    let step = |code: &[u32], k: u32| libc::sock_filter {
        code: code.iter().sum::<u32>() as u16,
        jt: 0,
        jf: 0,
        k,
    };
    let load = |offset: u32| step(&[BPF_LD, BPF_W, BPF_ABS], IP_HEADER.wrapping_add(offset));
    let and = |mask: u32| step(&[BPF_ALU, BPF_AND, BPF_K], mask);
    let spread = || step(&[BPF_ALU, BPF_MUL, BPF_K], SPREAD);
    let choose = || {
        [
            spread(),
            step(&[BPF_ALU, BPF_RSH, BPF_K], 16),
            step(&[BPF_ALU, BPF_MOD, BPF_K], count),
            step(&[BPF_RET, BPF_A], 0),
        ]
    };
    let of_ipv4 = [&[load(12), and(mask(ipv4, 0))][..], &choose()].concat();
    let mut of_ipv6 = vec![load(8), and(mask(ipv6, 0))];
    for word in 1..4 {
        of_ipv6.extend([
            spread(),
            step(&[BPF_MISC, BPF_TAX], 0),
            load(8 + 4 * word),
            and(mask(ipv6, word)),
            step(&[BPF_ALU, BPF_XOR, BPF_X], 0),
        ]);
    }
    // The version of the packet decides, since a dual-stack socket gets packets of both.
    let mut is_ipv6 = step(&[BPF_JMP, BPF_JEQ, BPF_K], 6);
    is_ipv6.jt = of_ipv4.len() as u8;
    let begin = [
        step(&[BPF_LD, BPF_B, BPF_ABS], IP_HEADER),
        step(&[BPF_ALU, BPF_RSH, BPF_K], 4),
        is_ipv6,
    ];
    [&begin[..], &of_ipv4, &of_ipv6, &choose()].concat()
}

/// The mask of the 32-bit word at this place of an address, for a prefix of `bits`.
#[cfg(target_os = "linux")]
fn mask(bits: u8, word: u32) -> u32 {
    let bits = u32::from(bits).saturating_sub(32 * word).min(32);
    u32::MAX.checked_shl(32 - bits).unwrap_or(0)
}

#[cfg(test)]
#[cfg(target_os = "linux")]
mod tests {
    use super::*;
    use socket2::SockRef;
    use std::net::{TcpListener, TcpStream, UdpSocket};

    fn group(address: &str, count: usize) -> Vec<BoundSocket> {
        let endpoint = address.parse::<crate::net::Address>().unwrap();
        let endpoint = endpoint.resolve().unwrap().remove(0);
        let options = BindOptions::default();
        let first = BoundSocket::new(&endpoint, &options).unwrap();
        assert!(first.can_be_grouped());
        let name = format!("echo-reactor-group-{}", std::process::id());
        let unix = Endpoint::Unix(crate::net::UnixName::Abstract(name));
        let unix = BoundSocket::bind_and_listen(&unix, &options);
        assert!(unix.is_ok_and(|unix| !unix.can_be_grouped()));
        first.into_group(count, &options).unwrap()
    }

    /// How many connections or datagrams are queued at each socket, emptying the queues.
    fn queued(group: &[BoundSocket]) -> Vec<usize> {
        let take = |socket: &BoundSocket| {
            socket.socket.set_nonblocking(true).unwrap();
            let is_stream = matches!(socket.endpoint, Endpoint::Tcp(_));
            let take_one = || match is_stream {
                true => socket.socket.accept().is_ok(),
                false => SockRef::from(&socket.socket)
                    .recv(&mut [std::mem::MaybeUninit::uninit(); 8])
                    .is_ok(),
            };
            std::iter::repeat_with(take_one)
                .take_while(|&is_one| is_one)
                .count()
        };
        group.iter().map(take).collect()
    }

    #[test]
    fn every_socket_of_a_group_gets_a_part() {
        let tcp = group("tcp://127.0.0.1:0", 3);
        let Endpoint::Tcp(address) = tcp[0].endpoint else {
            panic!("it is TCP");
        };
        assert!(tcp.iter().all(|one| one.endpoint == tcp[0].endpoint));
        let clients: Vec<TcpStream> = (0..200)
            .map(|_| TcpStream::connect(address).unwrap())
            .collect();
        let parts = queued(&tcp);
        assert_eq!(parts.iter().sum::<usize>(), clients.len());
        assert!(parts.iter().all(|&part| part > 20), "{parts:?}");

        let udp = group("udp://127.0.0.1:0", 3);
        let Endpoint::Udp(address) = udp[0].endpoint else {
            panic!("it is UDP");
        };
        for _ in 0..200 {
            let client = UdpSocket::bind("127.0.0.1:0").unwrap();
            client.send_to(b"one", address).unwrap();
        }
        let parts = queued(&udp);
        assert_eq!(parts.iter().sum::<usize>(), 200);
        assert!(parts.iter().all(|&part| part > 20), "{parts:?}");
    }

    #[test]
    fn a_mask_has_the_bits_of_its_word() {
        assert_eq!([0, 1].map(|word| mask(32, word)), [u32::MAX, 0]);
        assert_eq!(mask(24, 0), 0xffff_ff00);
        assert_eq!(
            [0, 1, 2].map(|word| mask(56, word)),
            [u32::MAX, 0xffff_ff00, 0]
        );
        assert_eq!([mask(0, 0), mask(128, 3)], [0, u32::MAX]);
    }

    /// Runs a program on a packet as the kernel does, as far as these programs need it.
    fn place_of(program: &[libc::sock_filter], packet: &[u8]) -> u32 {
        use libc::*;
        let (mut a, mut x, mut at) = (0_u32, 0_u32, 0);
        loop {
            let step = &program[at];
            let k = step.k;
            let loaded = |bytes: usize| {
                let from = k.wrapping_sub(IP_HEADER) as usize;
                let bytes = &packet[from..from + bytes];
                bytes
                    .iter()
                    .fold(0, |word, &byte| word << 8 | u32::from(byte))
            };
            at += 1;
            match u32::from(step.code) {
                code if code == BPF_LD | BPF_W | BPF_ABS => a = loaded(4),
                code if code == BPF_LD | BPF_B | BPF_ABS => a = loaded(1),
                code if code == BPF_ALU | BPF_AND | BPF_K => a &= k,
                code if code == BPF_ALU | BPF_MUL | BPF_K => a = a.wrapping_mul(k),
                code if code == BPF_ALU | BPF_RSH | BPF_K => a >>= k,
                code if code == BPF_ALU | BPF_MOD | BPF_K => a %= k,
                code if code == BPF_ALU | BPF_XOR | BPF_X => a ^= x,
                code if code == BPF_MISC | BPF_TAX => x = a,
                code if code == BPF_JMP | BPF_JEQ | BPF_K => {
                    at += usize::from(if a == k { step.jt } else { step.jf });
                }
                code if code == BPF_RET | BPF_A => return a,
                code => panic!("a step of another kind: {code:#x}"),
            }
        }
    }

    /// The start of a packet from this source, up to the end of its address.
    fn packet_from(source: std::net::IpAddr) -> Vec<u8> {
        match source {
            std::net::IpAddr::V4(ip) => [&[0x45; 12][..], &ip.octets()].concat(),
            std::net::IpAddr::V6(ip) => [&[0x60; 8][..], &ip.octets()].concat(),
        }
    }

    /// Every part of the prefix decides, and nothing else does.
    #[test]
    fn the_prefix_of_a_source_decides_its_place() {
        let places = |bits: (u8, u8), source: &dyn Fn(u16) -> String| {
            let program = program(3, bits.0, bits.1);
            let place = |number| place_of(&program, &packet_from(source(number).parse().unwrap()));
            (1..100)
                .map(place)
                .collect::<std::collections::BTreeSet<u32>>()
                .len()
        };
        let (all, nets) = ((32, 128), (24, 56));
        for (bits, source, expected) in [
            (
                all,
                &(|n| format!("10.7.0.{n}")) as &dyn Fn(u16) -> String,
                3,
            ),
            (nets, &|n| format!("10.7.0.{n}"), 1),
            (nets, &|n| format!("10.7.{n}.1"), 3),
            (all, &|n| format!("{n:x}::1"), 3),
            (all, &|n| format!("2001:db8:{n:x}::1"), 3),
            (all, &|n| format!("2001:db8::{n:x}:0:1"), 3),
            (all, &|n| format!("2001:db8::{n:x}"), 3),
            (nets, &|n| format!("2001:db8:0:{n:x}00::1"), 3),
            (nets, &|n| format!("2001:db8:0:{n:x}::1"), 1),
            (nets, &|n| format!("2001:db8::{n:x}:0:1"), 1),
            (nets, &|n| format!("2001:db8::{n:x}"), 1),
        ] {
            assert_eq!(
                places(bits, source),
                expected,
                "{} of {bits:?} bits",
                source(1)
            );
        }
    }

    /// Every source comes to one socket, at the same place in every group; and the sources are divided.
    #[test]
    fn a_steered_group_divides_by_source() {
        let (tcp, udp) = (group("tcp://127.0.0.1:0", 3), group("udp://0.0.0.0:0", 3));
        let both = group("tcp://[::]:0", 3);
        for group in [&tcp, &udp, &both] {
            steer_by_source(group, 32, 64).unwrap();
        }
        let (Endpoint::Tcp(to), Endpoint::Udp(by)) = (&tcp[0].endpoint, &udp[0].endpoint) else {
            panic!("they are TCP and UDP");
        };
        let Endpoint::Tcp(dual) = &both[0].endpoint else {
            panic!("it is TCP");
        };
        let mut places = std::collections::BTreeSet::new();
        for host in 1..30 {
            let from: std::net::SocketAddr = format!("127.7.3.{host}:0").parse().unwrap();
            let connect = |to: &std::net::SocketAddr| {
                let client =
                    socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None)
                        .unwrap();
                client.bind(&from.into()).unwrap();
                client.connect(&(*to).into()).unwrap();
                client
            };
            let dual = ([127, 0, 0, 1], dual.port()).into();
            let _clients: Vec<_> = (0..3).flat_map(|_| [connect(to), connect(&dual)]).collect();
            for _ in 0..3 {
                let client = UdpSocket::bind(from).unwrap();
                client.send_to(b"one", ("127.0.0.1", by.port())).unwrap();
            }
            let parts = queued(&tcp);
            assert_eq!((&parts, &parts), (&queued(&udp), &queued(&both)));
            let place = parts.iter().position(|&part| part == 3);
            places.insert(place.expect("all three are at one socket"));
        }
        assert_eq!(places.len(), 3, "every socket has some of the sources");
        if TcpListener::bind("[::1]:0").is_ok() {
            let one = format!("[::1]:{}", dual.port());
            let _clients: Vec<_> = (0..4).map(|_| TcpStream::connect(&one).unwrap()).collect();
            assert!(queued(&both).contains(&4));
        }
    }

    /// A plain bind finds a group taken, and a group does not form at an address that is taken.
    #[test]
    fn a_second_server_cannot_join() {
        let tcp = group("tcp://127.0.0.1:0", 2);
        let options = BindOptions::default();
        let error = BoundSocket::new(&tcp[0].endpoint, &options).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let endpoint = Endpoint::Tcp(taken.local_addr().unwrap());
        assert!(BoundSocket::new(&endpoint, &options).is_err());
    }

    /// What is queued at a socket waits while its descriptor is open anywhere.
    #[test]
    fn a_queue_outlives_the_copy_of_a_process() {
        let tcp = group("tcp://127.0.0.1:0", 2);
        let Endpoint::Tcp(address) = tcp[0].endpoint else {
            panic!("it is TCP");
        };
        let copies: Vec<_> = tcp
            .iter()
            .map(|one| one.socket.try_clone().unwrap())
            .collect();
        let clients: Vec<TcpStream> = (0..50)
            .map(|_| TcpStream::connect(address).unwrap())
            .collect();
        drop(copies);
        assert_eq!(queued(&tcp).iter().sum::<usize>(), clients.len());
    }
}
