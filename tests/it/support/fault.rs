//! How the fault catalogue brings faults about on the real kernel: as root, with tools that every Linux has.
//!
//! What may live in this file: the tools, each with the fault that it stands for. What may not: a test. A test that
//! needs root or a program asks for it first ([`can`]), and is skipped with one line where it is missing.

use super::{Serve, has_tool, program, skip, wait_until};
use echo_reactor::net::Endpoint;
use nix::errno::Errno;
use nix::sched::{CloneFlags, unshare};
use nix::sys::socket::{MsgFlags, recv};
use socket2::{Domain, Protocol, SockAddr, SockFilter, Socket, Type};
use std::fs;
use std::io::{self, Write};
use std::net::{IpAddr, SocketAddrV4, UdpSocket};
use std::os::fd::AsRawFd;
use std::panic::resume_unwind;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Whether the tests run as root and these programs are installed.
pub(crate) fn can(programs: &[&str]) -> bool {
    if !nix::unistd::geteuid().is_root() {
        skip("this takes root");
        return false;
    }
    programs.iter().all(|program| match *program {
        // Asked for their version by `-V`, the one form that all three know.
        "ss" | "ip" | "tc" => is_in_path(program),
        program => has_tool(program),
    })
}

fn is_in_path(name: &str) -> bool {
    let has = Command::new(name).arg("-V").output().is_ok();
    if !has {
        skip(&format!("there is no {name}"));
    }
    has
}

/// Prints a figure that a row asks for, straight to standard error, since the harness captures the output of a passing
/// test.
pub(crate) fn figure(text: &str) {
    let _ = writeln!(io::stderr(), "{text}");
}

/// Runs a command that must succeed, and returns its output.
#[track_caller]
pub(crate) fn sh(line: &str) -> String {
    let words: Vec<&str> = line.split_whitespace().collect();
    let output = Command::new(words[0]).args(&words[1..]).output().unwrap();
    let err = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{line}: {err}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

// --- Descriptors -------------------------------------------------------------------------------------------------------

/// Leaves the server no free descriptor.
#[track_caller]
pub(crate) fn exhaust(server: &Serve) {
    leave(server, 0);
}

/// Leaves the server this many free descriptors. (RLIMIT_NOFILE is not a count: it is the lowest number that may not be
/// given out; descriptors in use below it are not counted against it.)
#[track_caller]
pub(crate) fn leave(server: &Serve, free: usize) {
    let open = server.descriptors();
    let number = (0..).filter(|number| !open.contains(number)).nth(free);
    allow(server, number.unwrap());
}

/// Sets the limit of descriptors of a running server.
#[track_caller]
pub(crate) fn allow(server: &Serve, descriptors: u32) {
    sh(&format!(
        "prlimit --pid {} --nofile={descriptors}:",
        server.pid()
    ));
}

// --- Networks ----------------------------------------------------------------------------------------------------------

/// Sends a datagram from an address to itself. A route out is not enough: the kernel gives a new IPv6 address its local
/// route, by which packets come in, a moment after the address can be bound and connected to.
fn sends_to_itself(address: IpAddr) -> io::Result<()> {
    let socket = UdpSocket::bind((address, 0))?;
    socket.set_read_timeout(Some(Duration::from_millis(100)))?;
    socket.connect(socket.local_addr()?)?;
    socket.send(b"x")?;
    socket.recv(&mut [0; 1]).map(drop)
}

/// Runs a test in a network namespace that has a loopback interface with these addresses (CIDR) and nothing else. It
/// belongs to that thread and the processes that it starts, and ends with them: nothing to clean up.
#[track_caller]
pub(crate) fn in_own_network(addresses: &[&str], test: impl FnOnce() + Send) {
    let body = || {
        unshare(CloneFlags::CLONE_NEWNET).expect("root may");
        sh("ip link set lo up");
        for address in addresses {
            let no_check = if address.contains(':') { "nodad" } else { "" };
            sh(&format!("ip address add {address} dev lo {no_check}"));
        }
        for address in addresses {
            let address: IpAddr = address.split('/').next().unwrap().parse().unwrap();
            wait_until("a datagram to the address arrives", || {
                sends_to_itself(address).is_ok()
            });
        }
        test();
    };
    thread::scope(|scope| {
        let thread = thread::Builder::new().name(thread::current().name().unwrap_or("test").into());
        if let Err(panic) = thread.spawn_scoped(scope, body).unwrap().join() {
            resume_unwind(panic);
        }
    });
}

/// From now on the socket receives nothing, not even an acknowledgement: a filter drops every packet on its way in. To
/// the peer it is as if the cable were cut.
pub(crate) fn cut_off(socket: &Socket) {
    const RETURN: u16 = 0x06; // BPF_RET | BPF_K
    let nothing = [SockFilter::new(RETURN, 0, 0, 0)];
    socket.attach_filter(&nothing).unwrap();
}

/// From now on this percentage of packets is dropped on its way to the socket, data and acknowledgements alike.
pub(crate) fn lose(socket: &Socket, percent: u32) {
    const LOAD: u16 = 0x20; // BPF_LD | BPF_W | BPF_ABS
    const RANDOM: u32 = 0xffff_f000 + 56; // SKF_AD_OFF + SKF_AD_RANDOM
    const JUMP_IF_GREATER: u16 = 0x25; // BPF_JMP | BPF_JGT | BPF_K
    const RETURN: u16 = 0x06; // BPF_RET | BPF_K
    let lost = u32::MAX / 100 * percent;
    let filter = [
        SockFilter::new(LOAD, 0, 0, RANDOM),
        SockFilter::new(JUMP_IF_GREATER, 1, 0, lost),
        SockFilter::new(RETURN, 0, 0, 0),
        SockFilter::new(RETURN, 0, 0, u32::MAX),
    ];
    socket.attach_filter(&filter).unwrap();
}

/// The socket vanishes without FIN or RST, as in a power failure. (In repair mode a close sends nothing.)
pub(crate) fn vanish(socket: Socket) {
    nix::sys::socket::setsockopt(&socket, nix::sys::socket::sockopt::TcpRepair, &1).unwrap();
    drop(socket);
}

// --- Memory ------------------------------------------------------------------------------------------------------------

/// A control group whose sockets may take only so much kernel memory for TCP, removed at the end.
pub(crate) struct LittleMemory(PathBuf);

impl LittleMemory {
    /// A group with this many bytes, or `None` with the reason printed.
    pub(crate) fn new(bytes: u64) -> Option<Self> {
        let group = Path::new("/sys/fs/cgroup/memory").join(super::unique());
        let limit = group.join("memory.kmem.tcp.limit_in_bytes");
        let made = fs::create_dir(&group).and_then(|()| fs::write(limit, bytes.to_string()));
        let group = Self(group);
        match made {
            Ok(()) => Some(group),
            Err(error) => {
                skip(&format!(
                    "no control group with a limit of TCP memory: {error}"
                ));
                None
            }
        }
    }

    /// A server in this group.
    #[track_caller]
    pub(crate) fn serve(&self, addresses: &[&str], flags: &[&str]) -> Serve {
        let server = program();
        let mut command = Command::new("sh");
        command.args(["-c", "echo $$ > $0/cgroup.procs && exec \"$@\""]);
        command.arg(&self.0).arg(server.get_program()).arg("serve");
        command.args(addresses).args(flags).env_remove("RUST_LOG");
        command
            .stdin(std::process::Stdio::null())
            .stdout(std::process::Stdio::piped())
            .stderr(std::process::Stdio::piped());
        Serve::start_command(&mut command, addresses.len())
    }

    /// The peak of the memory of the group's sockets, in bytes. It may exceed the limit, beyond which the kernel still
    /// grants each socket the minimum that it needs.
    pub(crate) fn most_used(&self) -> u64 {
        let text = fs::read_to_string(self.0.join("memory.kmem.tcp.max_usage_in_bytes"));
        text.unwrap_or_default().trim().parse().unwrap_or(0)
    }
}

impl Drop for LittleMemory {
    fn drop(&mut self) {
        let _ = fs::remove_dir(&self.0);
    }
}

// --- Connections as the kernel reports them ----------------------------------------------------------------------------

/// One connection of a local port, as `ss` reports it.
#[derive(Debug)]
pub(crate) struct Kept {
    pub(crate) state: String,
    /// Bytes of kernel memory of the connection: received and unread (`r`), sent and unacknowledged or unsent (`w`),
    /// and allocated in advance (`f`).
    pub(crate) memory: u64,
}

/// Every connection that the kernel has for a local TCP port, without its listener.
#[track_caller]
pub(crate) fn kept(endpoint: &Endpoint) -> Vec<Kept> {
    let port = super::ip(endpoint).port();
    let text = sh(&format!("ss -Htanm sport = :{port}"));
    let mut all: Vec<Kept> = Vec::new();
    for line in text.lines() {
        // `ss` prints the memory on a line of its own after each socket, or at the end of the line.
        if !line.starts_with(char::is_whitespace) {
            let state = line.split_whitespace().next().unwrap().to_owned();
            all.push(Kept { state, memory: 0 });
        }
        if let Some((_, fields)) = line.split_once("skmem:(") {
            let fields = fields.trim_end().trim_end_matches(')').split(',');
            let amount = |field: &str| {
                let letters = field.trim_end_matches(|c: char| c.is_ascii_digit());
                let number = field[letters.len()..].parse::<u64>().ok()?;
                matches!(letters, "r" | "w" | "f").then_some(number)
            };
            all.last_mut().unwrap().memory = fields.filter_map(amount).sum();
        }
    }
    all.retain(|kept| kept.state != "LISTEN");
    all
}

/// Whether the peer has ended this connection, by FIN or RST. Reads nothing and does not block.
pub(crate) fn is_over(socket: &Socket) -> bool {
    let flags = MsgFlags::MSG_PEEK | MsgFlags::MSG_DONTWAIT;
    match recv(socket.as_raw_fd(), &mut [0], flags) {
        Ok(count) => count == 0,
        Err(errno) => errno != Errno::EAGAIN,
    }
}

// --- System calls ------------------------------------------------------------------------------------------------------

/// A server under strace, which records the calls that it was asked for, and makes some of them fail.
pub(crate) struct Traced {
    pub(crate) serve: Serve,
    log: PathBuf,
}

/// One call that strace recorded.
#[derive(Clone, Debug)]
pub(crate) struct Call {
    /// When it was made; see [`seconds_now`].
    pub(crate) at: f64,
    /// The line, from the call's name on.
    pub(crate) text: String,
}

/// Starts `serve` under `strace -e trace=CALLS`, with further options of strace such as `-e inject=...`.
#[track_caller]
pub(crate) fn traced(
    log: &Path,
    calls: &str,
    options: &[&str],
    addresses: &[&str],
    flags: &[&str],
) -> Traced {
    let server = program();
    let mut command = Command::new("strace");
    // With -D strace runs in the background, so that the child process is the server itself.
    command.args(["-D", "-f", "-ttt", "-o"]).arg(log);
    command
        .args(["-e", &format!("trace={calls}")])
        .args(options);
    command.arg(server.get_program()).arg("serve");
    command.args(addresses).args(flags).env_remove("RUST_LOG");
    command
        .stdin(std::process::Stdio::null())
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped());
    Traced {
        serve: Serve::start_command(&mut command, addresses.len().max(1)),
        log: log.to_owned(),
    }
}

/// A server with one failing call, in strace's syntax: `sendto:error=EPERM:when=1..3`.
#[track_caller]
pub(crate) fn failing(fault: &str, addresses: &[&str], flags: &[&str]) -> Serve {
    let (call, _) = fault.split_once(':').unwrap();
    let inject = format!("inject={fault}");
    let options = ["--seccomp-bpf", "-e", &inject];
    traced(Path::new("/dev/null"), call, &options, addresses, flags).serve
}

/// The time by the clock that strace records.
pub(crate) fn seconds_now() -> f64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.unwrap().as_secs_f64()
}

impl Traced {
    /// The calls recorded so far.
    pub(crate) fn calls(&self) -> Vec<Call> {
        let text = fs::read_to_string(&self.log).unwrap_or_default();
        let call = |line: &str| {
            let (_thread, line) = line.split_once(' ')?;
            let (at, text) = line.trim_start().split_once(' ')?; // short numbers of threads are padded
            Some(Call {
                at: at.parse().ok()?,
                text: text.to_owned(),
            })
        };
        let complete = text.rsplit_once('\n').map_or("", |(lines, _)| lines);
        complete.lines().filter_map(call).collect()
    }
}

// --- Datagrams ---------------------------------------------------------------------------------------------------------

/// Sends UDP datagrams with a forged source address.
pub(crate) struct Forger(Socket);

impl Forger {
    pub(crate) fn new() -> Self {
        const RAW: i32 = 255; // IPPROTO_RAW: the IP header is ours, too
        Self(Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::from(RAW))).unwrap())
    }

    /// Whether the kernel sent it; it refuses some sources itself.
    pub(crate) fn send(&self, source: SocketAddrV4, to: SocketAddrV4, bytes: &[u8]) -> bool {
        const UDP: u8 = 17;
        let udp_length = u16::try_from(8 + bytes.len()).unwrap();
        let mut packet = vec![0x45, 0, 0, 0, 0, 0, 0, 0, 64, UDP, 0, 0];
        packet.extend(source.ip().octets());
        packet.extend(to.ip().octets());
        packet.extend(source.port().to_be_bytes());
        packet.extend(to.port().to_be_bytes());
        packet.extend(udp_length.to_be_bytes());
        packet.extend([0, 0]); // no checksum; the kernel fills in that of IP, its length and its identification
        packet.extend(bytes);
        self.0.send_to(&packet, &SockAddr::from(to)).is_ok()
    }
}
