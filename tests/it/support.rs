//! What the tests share: servers to test, clients to test them with, and waits that have a deadline.
//!
//! What may live in this file: whatever at least two files need. What may not: a test.

#[cfg(feature = "cli")]
mod child;
#[cfg(all(feature = "cli", target_os = "linux"))]
pub(crate) mod fault;
#[cfg(all(feature = "cli", feature = "bench"))]
pub(crate) mod mutant;
#[cfg(all(feature = "cli", feature = "bench"))]
pub(crate) mod schema;

#[cfg(feature = "cli")]
pub(crate) use child::{Ended, Serve, by_shell, ended, pipe, program, strace, terminal, wrapped};

use echo_reactor::echo::{self, Config, Server, Turn};
use echo_reactor::net::{Address, Endpoint, Resolved, UnixName};
use echo_reactor::{Limits, Stats, blocking};
use socket2::{Domain, SockAddr, Socket, Type};
use std::fs;
use std::io::{self, Read, Write};
use std::mem::MaybeUninit;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{self, Receiver};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// Far more than any step of a test takes, even on a busy machine.
pub(crate) const DEADLINE: Duration = Duration::from_secs(60);

// --- Waiting -----------------------------------------------------------------------------------------------------------

/// Checks the condition again and again until it holds, or fails at the deadline.
#[track_caller]
pub(crate) fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + DEADLINE;
    while !is_so() {
        assert!(Instant::now() < deadline, "waited in vain until {what}");
        thread::sleep(Duration::from_millis(2));
    }
}

/// Runs turns of the server in this thread until the condition holds.
#[track_caller]
pub(crate) fn turn_until(server: &mut Server, what: &str, mut is_so: impl FnMut(&Stats) -> bool) {
    let deadline = Instant::now() + DEADLINE;
    while !is_so(server.stats()) {
        assert!(
            Instant::now() < deadline,
            "turned in vain until {what}: {}",
            server.stats()
        );
        let _ = server.turn(Some(Duration::from_millis(5))).unwrap();
    }
}

// --- Skipping ----------------------------------------------------------------------------------------------------------

/// Prints why a test is skipped, straight to standard error, since the harness captures the output of a passing test;
/// and, for `scripts/catalogue`, appends the test's name to the file that `ECHO_SKIPS` names.
pub(crate) fn skip(reason: &str) {
    let _ = writeln!(io::stderr(), "skipped: {reason}");
    let thread = thread::current();
    let (Some(path), Some(test)) = (std::env::var_os("ECHO_SKIPS"), thread.name()) else {
        return;
    };
    let file = fs::OpenOptions::new().create(true).append(true).open(path);
    let _ = file.and_then(|mut file| file.write_all(format!("{test}\t{reason}\n").as_bytes()));
}

/// Whether this machine has the IPv6 loopback address.
pub(crate) fn has_ipv6() -> bool {
    let has = std::net::TcpListener::bind("[::1]:0").is_ok();
    if !has {
        skip("this machine has no IPv6");
    }
    has
}

/// Whether a program can be started: it is run with `--version`.
#[cfg(feature = "cli")]
pub(crate) fn has_tool(name: &str) -> bool {
    let has = std::process::Command::new(name)
        .arg("--version")
        .output()
        .is_ok_and(|output| output.status.success());
    if !has {
        skip(&format!("there is no {name}"));
    }
    has
}

// --- Names and bytes ---------------------------------------------------------------------------------------------------

pub(crate) fn unique() -> String {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    format!("echo-it-{}-{number}", std::process::id())
}

/// An abstract name for a Unix socket that no other test uses.
pub(crate) fn unique_name() -> UnixName {
    UnixName::Abstract(unique())
}

/// A temporary directory of the test, removed with its content at the end.
pub(crate) struct Dir(PathBuf);

impl Dir {
    pub(crate) fn new() -> Self {
        let path = std::env::temp_dir().join(unique());
        fs::create_dir(&path).unwrap();
        Self(path)
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// `scheme:///this/directory/name`
    pub(crate) fn address(&self, scheme: &str, name: &str) -> String {
        format!("{scheme}://{}", self.path(name).display())
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Bytes without a repeating pattern, the same for the same seed.
pub(crate) struct Noise(u64);

impl Noise {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    pub(crate) fn fill(&mut self, bytes: &mut [u8]) {
        for eight in bytes.chunks_mut(8) {
            eight.copy_from_slice(&self.next().to_le_bytes()[..eight.len()]);
        }
    }
}

pub(crate) fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    Noise::new(seed).fill(&mut bytes);
    bytes
}

/// Compares long byte strings; a failure prints the first difference, not a megabyte.
#[track_caller]
pub(crate) fn assert_same(echoed: &[u8], sent: &[u8]) {
    let differs = echoed
        .iter()
        .zip(sent)
        .position(|(one, other)| one != other);
    assert_eq!(differs, None, "the first byte that differs");
    assert_eq!(echoed.len(), sent.len(), "the length");
}

// --- Clients -----------------------------------------------------------------------------------------------------------

/// The address of a server's socket for connect(2): the loopback address in place of a wildcard.
pub(crate) fn sock_addr(endpoint: &Endpoint) -> SockAddr {
    match endpoint {
        Endpoint::Tcp(address) | Endpoint::Udp(address) => {
            let ip = match address.ip() {
                IpAddr::V4(ip) if ip.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
                IpAddr::V6(ip) if ip.is_unspecified() => IpAddr::V6(Ipv6Addr::LOCALHOST),
                ip => ip,
            };
            SockAddr::from(SocketAddr::new(ip, address.port()))
        }
        Endpoint::Unix(UnixName::Path(path)) | Endpoint::UnixDatagram(UnixName::Path(path)) => {
            SockAddr::unix(path).unwrap()
        }
        Endpoint::Unix(UnixName::Abstract(name))
        | Endpoint::UnixDatagram(UnixName::Abstract(name)) => {
            SockAddr::unix(format!("\0{name}")).unwrap()
        }
        other => panic!("{other} is of a family that the tests do not connect to"),
    }
}

/// The IP address and port of an endpoint that has them.
#[track_caller]
pub(crate) fn ip(endpoint: &Endpoint) -> SocketAddr {
    match endpoint {
        Endpoint::Tcp(address) | Endpoint::Udp(address) => *address,
        other => panic!("{other} has no IP address"),
    }
}

/// A blocking client of any stream transport, with the deadline on its reads and writes.
pub(crate) fn try_connect(address: &SockAddr) -> io::Result<Socket> {
    let socket = Socket::new(
        Domain::from(i32::from(address.family())),
        Type::STREAM,
        None,
    )?;
    socket.set_read_timeout(Some(DEADLINE))?;
    socket.set_write_timeout(Some(DEADLINE))?;
    socket.connect(address)?;
    Ok(socket)
}

#[track_caller]
pub(crate) fn connect(endpoint: &Endpoint) -> Socket {
    match try_connect(&sock_addr(endpoint)) {
        Ok(socket) => socket,
        Err(error) => panic!("cannot connect to {endpoint}: {error}"),
    }
}

/// The result of connecting to a server that may reset the connection at once: `None` if the reset arrived before
/// connect(2) returned, which then reports it. That happens where this thread has to wait for a processor.
#[track_caller]
pub(crate) fn unless_reset(connected: io::Result<Socket>) -> Option<Socket> {
    match connected {
        Ok(socket) => Some(socket),
        Err(error) if error.kind() == io::ErrorKind::ConnectionReset => None,
        Err(error) => panic!("cannot connect: {error}"),
    }
}

/// What clients do.
pub(crate) trait Talk {
    /// Writes all of it.
    fn say(&self, bytes: &[u8]);
    /// Reads this many bytes.
    fn hear(&self, length: usize) -> Vec<u8>;
    /// Reads until the server's FIN.
    fn hear_all(&self) -> Vec<u8>;
    /// Writes the bytes and reads them back.
    fn is_echoed(&self, bytes: &[u8]);
    /// Sends FIN.
    fn finish(&self);
    /// Closes with a reset.
    fn reset(self);
    /// Writes without blocking until the send buffer is full, and returns the number of bytes written.
    fn push(&self) -> usize;
    /// Whether nothing can be read now, neither bytes nor FIN.
    fn hears_nothing(&self) -> bool;
}

impl Talk for Socket {
    #[track_caller]
    fn say(&self, bytes: &[u8]) {
        let mut socket = self;
        socket.write_all(bytes).expect("the server takes it");
    }

    #[track_caller]
    fn hear(&self, length: usize) -> Vec<u8> {
        let mut bytes = vec![0; length];
        let mut socket = self;
        socket.read_exact(&mut bytes).expect("the server answers");
        bytes
    }

    #[track_caller]
    fn hear_all(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        let mut socket = self;
        socket.read_to_end(&mut bytes).expect("the server says FIN");
        bytes
    }

    #[track_caller]
    fn is_echoed(&self, bytes: &[u8]) {
        self.say(bytes);
        assert_same(&self.hear(bytes.len()), bytes);
    }

    #[track_caller]
    fn finish(&self) {
        self.shutdown(Shutdown::Write).unwrap();
    }

    #[track_caller]
    fn reset(self) {
        self.set_linger(Some(Duration::ZERO)).unwrap();
    }

    #[track_caller]
    fn push(&self) -> usize {
        self.set_nonblocking(true).unwrap();
        let bytes = [b'x'; 16 * 1024];
        let mut pushed = 0;
        let end = loop {
            match (&mut &*self).write(&bytes) {
                Ok(length) => pushed += length,
                Err(error) => break error,
            }
        };
        assert_eq!(end.kind(), io::ErrorKind::WouldBlock, "{end}");
        self.set_nonblocking(false).unwrap();
        pushed
    }

    #[track_caller]
    fn hears_nothing(&self) -> bool {
        self.set_nonblocking(true).unwrap();
        let result = self.peek(&mut [MaybeUninit::uninit()]);
        self.set_nonblocking(false).unwrap();
        result.is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock)
    }
}

/// Makes a client of a Unix socket a stalled reader: sends more than the server and the way back can hold, and reads
/// nothing, so that the server has unsent bytes now or after its next turn. Returns the number of bytes sent.
///
/// Over TCP this cannot be told from outside: a full window also drops the acknowledgements of the other direction, and
/// both sides stand still until a timer of the kernel goes off, though neither buffer is full.
#[track_caller]
pub(crate) fn stick(client: &Socket) -> usize {
    let way_back = client.send_buffer_size().unwrap(); // the server's has the same size
    let enough = way_back + Limits::default().read_buffer_bytes;
    let mut pushed = 0;
    wait_until("enough bytes are under way", || {
        pushed += client.push();
        pushed > enough
    });
    pushed
}

/// Lets clients that never read send until no byte moves any more.
#[track_caller]
pub(crate) fn stuff(clients: &[Socket]) {
    let mut quiet = 0;
    // Twenty checks without progress are no proof that all is full, so the bounds that a caller asserts must hold at
    // any time.
    wait_until("no client can send any more", || {
        let pushed: usize = clients.iter().map(Talk::push).sum();
        quiet = if pushed == 0 { quiet + 1 } else { 0 };
        quiet == 20
    });
}

// --- Servers in a thread -----------------------------------------------------------------------------------------------

/// The three servers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Model {
    Reactor,
    Threads,
    Iterative,
}

/// A server of the library that runs in a thread.
pub(crate) struct Running {
    pub(crate) endpoints: Vec<Endpoint>,
    handle: Handle,
    end: Receiver<io::Result<Stats>>,
}

enum Handle {
    Reactor(echo::Handle, Arc<Mutex<Stats>>),
    Blocking(blocking::Handle),
}

#[track_caller]
pub(crate) fn parse(addresses: &[&str]) -> Vec<Address> {
    addresses.iter().map(|text| text.parse().unwrap()).collect()
}

/// An event loop that has run no turn yet.
#[track_caller]
pub(crate) fn bind(addresses: &[&str], config: impl Into<Config>) -> Server {
    Server::bind(parse(addresses), config).unwrap_or_else(|error| panic!("{error}"))
}

impl Running {
    #[track_caller]
    pub(crate) fn start(model: Model, addresses: &[&str], config: impl Into<Config>) -> Self {
        match model {
            Model::Reactor => Self::reactor(addresses, config),
            Model::Threads => Self::blocking(
                blocking::Model::ThreadPerConnection,
                addresses,
                &config.into(),
            ),
            Model::Iterative => {
                Self::blocking(blocking::Model::Iterative, addresses, &config.into())
            }
        }
    }

    #[track_caller]
    pub(crate) fn reactor(addresses: &[&str], config: impl Into<Config>) -> Self {
        let mut server = bind(addresses, config);
        let latest = Arc::new(Mutex::new(Stats::default()));
        let (sender, end) = mpsc::channel();
        let running = Self {
            endpoints: server.addresses().to_vec(),
            handle: Handle::Reactor(server.handle(), Arc::clone(&latest)),
            end,
        };
        thread::spawn(move || {
            let result = loop {
                match server.turn(None) {
                    Ok(Turn::Finished) => break Ok(server.stats().clone()),
                    Ok(_) => lock(&latest).clone_from(server.stats()),
                    Err(error) => break Err(error),
                }
            };
            drop(server); // before the result is sent: its receiver finds everything closed
            let _ = sender.send(result);
        });
        running
    }

    #[track_caller]
    fn blocking(model: blocking::Model, addresses: &[&str], config: &Config) -> Self {
        let resolve = |address: Address| Resolved {
            endpoints: address.resolve().unwrap(),
            address,
        };
        let addresses: Vec<Resolved> = parse(addresses).into_iter().map(resolve).collect();
        let (limits, options) = (config.limits.clone(), config.bind_options());
        let server = blocking::Server::bind_resolved(model, &addresses, limits, &options)
            .unwrap_or_else(|error| panic!("{error}"));
        let (sender, end) = mpsc::channel();
        let running = Self {
            endpoints: server.addresses(),
            handle: Handle::Blocking(server.handle()),
            end,
        };
        thread::spawn(move || {
            let _ = sender.send(server.run());
        });
        running
    }

    /// A client connected to the server's first address.
    #[track_caller]
    pub(crate) fn connect(&self) -> Socket {
        connect(&self.endpoints[0])
    }

    /// The counters after the latest turn.
    pub(crate) fn stats(&self) -> Stats {
        match &self.handle {
            Handle::Reactor(_, latest) => lock(latest).clone(),
            Handle::Blocking(handle) => handle.stats(),
        }
    }

    pub(crate) fn request_drain(&self) {
        match &self.handle {
            Handle::Reactor(handle, _) => handle.drain(),
            Handle::Blocking(handle) => handle.drain(),
        }
    }

    pub(crate) fn order_stop(&self) {
        match &self.handle {
            Handle::Reactor(handle, _) => handle.stop(),
            Handle::Blocking(handle) => handle.stop(),
        }
    }

    /// Waits for the server's end and returns its counters, which are consistent and show no open connection.
    #[track_caller]
    pub(crate) fn end(self) -> Stats {
        let result = self.end.recv_timeout(DEADLINE);
        let stats = result.expect("the server ends").expect("in good order");
        assert_eq!(stats.check_invariants(), Ok(()));
        assert_eq!((stats.connections_open, stats.unsent_bytes), (0, 0));
        stats
    }

    #[track_caller]
    pub(crate) fn drain(self) -> Stats {
        self.request_drain();
        self.end()
    }

    #[track_caller]
    pub(crate) fn stop(self) -> Stats {
        self.order_stop();
        self.end()
    }
}

/// A failing test leaves no server running.
impl Drop for Running {
    fn drop(&mut self) {
        self.order_stop();
    }
}

fn lock(stats: &Mutex<Stats>) -> std::sync::MutexGuard<'_, Stats> {
    stats.lock().unwrap_or_else(PoisonError::into_inner)
}

// --- Files of the system -----------------------------------------------------------------------------------------------

/// Datagrams that the kernel dropped at this IPv4 address, from `/proc/net/udp`.
#[track_caller]
pub(crate) fn kernel_drops(address: SocketAddr) -> u64 {
    let IpAddr::V4(ip) = address.ip() else {
        panic!("{address} is in another table");
    };
    let local = format!(
        "{:08X}:{:04X}",
        u32::from_ne_bytes(ip.octets()),
        address.port()
    );
    let table = fs::read_to_string("/proc/net/udp").unwrap();
    let row = table
        .lines()
        .find(|line| line.split_whitespace().nth(1) == Some(&local));
    let drops = row.and_then(|line| line.split_whitespace().last()?.parse().ok());
    drops.expect("the address is bound")
}

/// Whether a file is at this path.
pub(crate) fn exists(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok()
}
