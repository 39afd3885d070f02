//! Tests of binding: socket options, names without an address, and socket files.

use super::*;
use std::cell::Cell;
use std::fs;
use std::path::{Path, PathBuf};

fn tcp() -> Endpoint {
    Endpoint::Tcp("127.0.0.1:0".parse().unwrap())
}

fn stream_options(change: impl FnOnce(&mut BindOptions)) -> (BindOptions, StreamOptions) {
    let mut options = BindOptions::default();
    change(&mut options);
    let stream = StreamOptions::new(&options);
    (options, stream)
}

/// Connections inherit TCP_NODELAY, and an echo of a few bytes must not wait for more to send.
#[test]
fn listeners_do_not_wait_to_fill_a_segment() {
    let any = Endpoint::Tcp("127.0.0.1:0".parse().unwrap());
    let bound = BoundSocket::new(&any, &BindOptions::default()).unwrap();
    assert!(bound.socket.tcp_nodelay().unwrap());
}

/// std and mio listen with a backlog of 128. A connect(2) to a Unix socket fails at once when the queue is full.
#[test]
fn the_accept_queue_is_as_long_as_the_system_allows() {
    let name = UnixName::Abstract(format!("echo-reactor-queue-{}", std::process::id()));
    let address = name.to_sock_addr().unwrap();
    let _bound = BoundSocket::new(&Endpoint::Unix(name), &BindOptions::default()).unwrap();
    let clients: Vec<Socket> = (0..200)
        .map_while(|_| {
            let client = Socket::new(Domain::UNIX, Type::STREAM, None).unwrap();
            client.set_nonblocking(true).unwrap();
            client.connect(&address).is_ok().then_some(client)
        })
        .collect();
    let most = crate::procfs::sysctl("net.core.somaxconn").unwrap();
    assert_eq!(clients.len(), 200.min(most + 1));
}

// ---- socket options ----

/// Options of every kind, with sizes that no system has by itself.
fn all_options() -> (BindOptions, StreamOptions) {
    stream_options(|options| {
        options.send_buffer_bytes = Some(16 * 1024);
        options.receive_buffer_bytes = Some(8 * 1024);
        options.keepalive = Some(Duration::from_secs(10));
        options.user_timeout = Some(Duration::from_secs(15));
    })
}

#[test]
fn one_option_that_a_listener_lacks_is_noticed_and_corrected() {
    let (options, stream) = all_options();
    type Change = fn(&Socket);
    let changes: [(&str, Change); 8] = [
        ("TCP_NODELAY", |socket| {
            socket.set_tcp_nodelay(false).unwrap();
        }),
        ("SO_KEEPALIVE", |socket| {
            socket.set_keepalive(false).unwrap();
        }),
        ("TCP_KEEPIDLE", |socket| {
            let probes = TcpKeepalive::new().with_time(Duration::from_secs(11));
            socket.set_tcp_keepalive(&probes).unwrap();
        }),
        ("TCP_USER_TIMEOUT", |socket| {
            socket.set_tcp_user_timeout(None).unwrap();
        }),
        ("SO_SNDBUF", |socket| {
            socket.set_send_buffer_size(20_000).unwrap();
        }),
        ("SO_RCVBUF", |socket| {
            socket.set_recv_buffer_size(20_000).unwrap();
        }),
        ("SO_LINGER", |socket| {
            socket.set_linger(Some(Duration::ZERO)).unwrap();
        }),
        ("TCP_CORK", |socket| socket.set_tcp_cork(true).unwrap()),
    ];
    for (name, change) in changes {
        let bound = BoundSocket::new(&tcp(), &options).unwrap();
        let socket = SockRef::from(&bound.socket);
        assert!(stream.are_set(&socket), "before {name} is changed");
        change(&bound.socket);
        assert!(!stream.are_set(&socket), "{name} is not as asked for");
        assert_eq!(stream.set_inherited(&socket), 0);
        assert!(stream.are_set(&socket), "{name} is corrected");
    }
}

/// Nothing is asked of a listener that has the sizes and timeouts of the system.
#[test]
fn options_that_were_not_asked_for_may_have_any_value() {
    let (_, none) = stream_options(|_| {});
    let (options, _) = all_options();
    let bound = BoundSocket::new(&tcp(), &options).unwrap();
    assert!(none.are_set(&SockRef::from(&bound.socket)));
}

/// A socket can be served without them, so each option that cannot be set is counted. A file has none of them.
#[test]
fn each_option_that_cannot_be_set_is_counted() {
    let file = fs::File::open("/dev/null").unwrap();
    let (_, stream) = all_options();
    let count = |set: fn(StreamOptions, &SockRef<'_>) -> u32| set(stream, &SockRef::from(&file));
    assert_eq!(count(StreamOptions::set_tcp), 3);
    assert_eq!(count(StreamOptions::set_buffers), 2);
    assert_eq!(count(StreamOptions::set_inherited), 7);
}

/// TCP_KEEPIDLE is limited to 32,767 seconds (tcp(7)).
#[test]
fn a_listener_counts_the_options_that_it_lacks() {
    let (options, _) = stream_options(|options| {
        options.keepalive = Some(Duration::from_secs(40_000));
    });
    let bound = BoundSocket::new(&tcp(), &options).unwrap();
    assert_eq!(bound.option_errors, 1);
}

/// Linux doubles what is set (socket(7)).
#[test]
fn buffers_of_datagram_sockets_are_enlarged_and_never_shrunk() {
    for (bytes, expected) in [(40_000, 100_000), (60_000, 120_000)] {
        let udp = Socket::new(Domain::IPV4, Type::DGRAM, None).unwrap();
        udp.set_send_buffer_size(50_000).unwrap();
        udp.set_recv_buffer_size(50_000).unwrap();
        let (_, stream) = stream_options(|options| {
            options.send_buffer_bytes = Some(bytes);
            options.receive_buffer_bytes = Some(bytes);
        });
        assert_eq!(stream.enlarge_buffers(&SockRef::from(&udp)), 0);
        let sizes = (
            udp.send_buffer_size().unwrap(),
            udp.recv_buffer_size().unwrap(),
        );
        assert_eq!(sizes, (expected, expected));
    }
}

// ---- addresses that cannot be bound ----

/// Addresses for documentation (RFC 5737, RFC 3849), which no machine has.
const NO_IPV4: &str = "192.0.2.1:0";
const NO_IPV6: &str = "[2001:db8::1]:0";

#[track_caller]
fn bind_name(address: &str, endpoints: &[&str]) -> Result<usize, BindError> {
    let resolved = Resolved {
        address: address.parse().unwrap(),
        endpoints: endpoints
            .iter()
            .map(|text| Endpoint::Tcp(text.parse().unwrap()))
            .collect(),
    };
    bind_resolved(&[resolved], &BindOptions::default()).map(|bound| bound.len())
}

#[test]
fn only_an_ipv6_address_of_a_name_may_be_left_out() {
    let here = "127.0.0.1:0";
    assert_eq!(bind_name("a.name:0", &[here, NO_IPV6]).unwrap(), 1);
    for (address, endpoints, missing) in [
        ("a.name:0", &[NO_IPV6][..], NO_IPV6),
        ("a.name:0", &[here, NO_IPV4], NO_IPV4),
        (NO_IPV6, &[here, NO_IPV6], NO_IPV6),
    ] {
        let error = bind_name(address, endpoints).unwrap_err();
        let missing = Endpoint::Tcp(missing.parse().unwrap());
        assert!(
            matches!(&error, BindError::Bind(endpoint, _) if *endpoint == missing),
            "{error}"
        );
    }
}

#[test]
fn an_address_is_named_twice_only_if_it_is_in_use() {
    let options = BindOptions::default();
    let bound = BoundSocket::new(&tcp(), &options).unwrap();
    let (endpoint, address) = (
        bound.endpoint.clone(),
        Address::from(bound.endpoint.clone()),
    );
    let bound = [(&address, bound)];
    let explained = |kind: io::ErrorKind| explain(&address, &endpoint, kind.into(), &bound);
    assert!(matches!(
        explained(io::ErrorKind::AddrInUse),
        BindError::Twice { .. }
    ));
    assert!(matches!(
        explained(io::ErrorKind::PermissionDenied),
        BindError::Bind(..)
    ));
}

// ---- socket files ----

/// A directory that is removed in the end.
struct TestDir(PathBuf);

impl TestDir {
    fn new(name: &str) -> Self {
        let name = format!("echo-reactor-bind-{name}-{}", std::process::id());
        let directory = std::env::temp_dir().join(name);
        fs::create_dir(&directory).unwrap();
        Self(directory)
    }
}

impl Drop for TestDir {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Binds a socket at this path. Another process disturbs the first `disturbed` attempts. Returns the number of attempts, too.
fn bind_disturbed(
    path: &Path,
    disturbed: u32,
    disturb: impl Fn(),
) -> (u32, io::Result<BoundSocket>) {
    let endpoint = Endpoint::Unix(UnixName::Path(path.to_owned()));
    let attempts = Cell::new(0);
    let bound = BoundSocket::bind_and_publish(|| {
        attempts.set(attempts.get() + 1);
        let bound = BoundSocket::bind_and_listen(&endpoint, &BindOptions::default())?;
        if attempts.get() <= disturbed {
            disturb();
        }
        Ok(bound)
    });
    (attempts.get(), bound)
}

#[test]
fn a_socket_whose_staging_directory_was_removed_is_bound_again() {
    let directory = TestDir::new("again");
    let path = directory.0.join("s");
    let remove = || fs::remove_dir_all(directory.0.join(".s.starting")).unwrap();
    let (attempts, bound) = bind_disturbed(&path, 3, remove);
    assert_eq!(attempts, 4);
    std::os::unix::net::UnixStream::connect(&path).expect("its file leads to it");
    drop(bound.unwrap());
    let (attempts, bound) = bind_disturbed(&path, u32::MAX, remove);
    assert_eq!(
        (attempts, bound.unwrap_err().kind()),
        (4, io::ErrorKind::NotFound)
    );
}

#[test]
fn a_path_that_was_taken_meanwhile_is_not_tried_again() {
    let directory = TestDir::new("taken");
    let path = directory.0.join("s");
    let (attempts, bound) = bind_disturbed(&path, 1, || fs::write(&path, "").unwrap());
    assert_eq!(
        (attempts, bound.unwrap_err().kind()),
        (1, io::ErrorKind::AddrInUse)
    );
    assert_eq!(
        fs::read(&path).unwrap(),
        b"",
        "the file of another program stays"
    );
}

/// A port of the range that the kernel assigns from may be a client's a moment later.
#[cfg(any(feature = "check", all(feature = "bench", feature = "cli")))]
#[test]
fn a_port_for_a_server_is_free_and_no_client_is_given_it() {
    let (assigned_from, _) = port_range();
    for kind in [Type::STREAM, Type::DGRAM] {
        let ports = [(); 20].map(|()| free_port(kind).unwrap());
        assert!(ports.iter().any(|port| *port != ports[0]));
        if assigned_from > PORTS_FROM + 1_000 {
            let own = PORTS_FROM..assigned_from;
            assert!(ports.iter().all(|port| own.contains(port)), "{ports:?}");
        }
    }
}
