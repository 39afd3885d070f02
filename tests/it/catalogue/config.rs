//! G: what the machine or the command line cannot grant, and how the error says so.

use crate::support::{
    DEADLINE, Dir, Serve, Talk, ended, has_ipv6, has_tool, ip, noise, program, skip, strace,
    try_connect, wrapped,
};
use nix::sys::signal::Signal;
use std::fs;
use std::io::ErrorKind;
use std::net::{TcpListener, UdpSocket};
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixDatagram;

const TCP: &str = "tcp://127.0.0.1:0";

// --- G1: an address that cannot be had ---------------------------------------------------------------------------------

#[test]
fn g1_a_port_in_use_is_refused_with_the_address_and_a_remedy() {
    let living = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("tcp://{}", living.local_addr().unwrap());
    for model in ["reactor", "threads", "iterative"] {
        let refused = ended(program().args(["serve", &address, "--model", model]));
        refused.failed(
            69,
            &[
                "unavailable: ",
                &address,
                "is in use",
                "'ss -tlnp sport = :",
            ],
        );
    }
    let living = UdpSocket::bind("127.0.0.1:0").unwrap();
    let address = format!("udp://{}", living.local_addr().unwrap());
    let refused = ended(program().args(["serve", &address]));
    refused.failed(69, &[&address, "is in use", "'ss -ulnp sport = :"]);
}

#[test]
fn g1_an_address_of_another_machine_and_an_unknown_name_are_refused() {
    let elsewhere = ended(program().args(["serve", "192.0.2.1:0"]));
    elsewhere.failed(69, &["tcp://192.0.2.1:0", "not an address of this machine"]);
    let nowhere = ended(program().args(["serve", "no.such.host.invalid:7"]));
    nowhere.failed(
        68,
        &["tcp://no.such.host.invalid:7", "check the host's name"],
    );
}

/// Addresses bound before the one that failed are released: no port stays bound, and no file is left.
#[test]
fn g1_a_server_that_cannot_bind_all_its_addresses_binds_none() {
    let living = TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = format!("tcp://{}", living.local_addr().unwrap());
    let free = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let directory = Dir::new();
    let file = directory.address("unix", "s");
    let refused = ended(program().args(["serve", &format!("tcp://{free}"), &file, &taken]));
    refused.failed(69, &[&taken, "is in use"]);
    TcpListener::bind(free).expect("the port is free again");
    assert_eq!(fs::read_dir(directory.path("")).unwrap().count(), 0);
}

/// Even root may not bind a port below 1024 without the capability, which a bounding set takes from it.
#[test]
fn g1_a_privileged_port_is_refused_with_the_capability_it_needs() {
    if fs::metadata("/proc/self").unwrap().uid() != 0 {
        let refused = ended(program().args(["serve", "127.0.0.1:7"]));
        return refused.failed(77, &["tcp://127.0.0.1:7", "cap_net_bind_service"]);
    }
    if !has_tool("setpriv") {
        return;
    }
    let mut command = wrapped("setpriv", &["--bounding-set=-net_bind_service"]);
    command.args(["serve", "127.0.0.1:7"]);
    ended(&mut command).failed(77, &["tcp://127.0.0.1:7", "cap_net_bind_service"]);
}

/// On a machine without IPv6 its addresses are refused, and a wildcard means all interfaces over IPv4.
#[test]
fn g1_without_ipv6_its_addresses_are_refused_and_a_wildcard_means_ipv4() {
    // The kernel of this machine has IPv6, so strace gives the one call that finds out the answer of a kernel without
    // it.
    let Some(mut command) = strace("socket", "error=EAFNOSUPPORT:when=1") else {
        return;
    };
    let refused = ended(command.args(["serve", "[::1]:0"]));
    refused.failed(69, &["tcp://[::1]:0", "no IPv6", "127.0.0.1:0"]);
    let mut command = strace("socket", "error=EAFNOSUPPORT:when=1").unwrap();
    let server = Serve::start_command(command.args(["serve", ":0"]), 1);
    assert!(
        server.endpoints[0]
            .to_string()
            .starts_with("tcp://0.0.0.0:")
    );
    server.connect().is_echoed(b"by IPv4");
}

// --- G2: more than the limit of descriptors ----------------------------------------------------------------------------

#[test]
fn g2_more_connections_than_fit_are_a_warning_or_with_strict_a_refusal() {
    let asked = ["--max-connections", "4M"]; // more descriptors than Linux gives to a process by default
    let server = Serve::start(&[TCP], &asked);
    server.says("--max-connections 4,000,000 is too much");
    server.says("holds up to");
    server.connect().is_echoed(b"served all the same");
    let refused = ended(program().args(["serve", TCP, "--strict"]).args(asked));
    refused.failed(
        71,
        &[
            "--max-connections 4,000,000",
            "the limits allow",
            "LimitNOFILE=",
        ],
    );
    let server = Serve::start(&[TCP], &["--strict", "--max-connections", "100"]);
    server.says("holds up to 100 connections (as --max-connections says)");
}

/// With a known hard limit, the test can assert the numbers in the messages.
#[test]
fn g2_the_refusal_states_what_was_asked_and_what_there_is() {
    if !has_tool("prlimit") {
        return;
    }
    let limited = || wrapped("prlimit", &["--nofile=1000:1000"]);
    let line = ["serve", TCP, "--max-connections", "1M"];
    let numbers = [
        "--max-connections 1,000,000",
        "the limits allow 968",
        "1,000 descriptors",
    ];
    ended(limited().args(line).arg("--strict")).failed(71, &numbers);
    let server = Serve::start_command(limited().args(line), 1);
    numbers.iter().for_each(|number| server.says(number));
    server.says("holds up to 968 connections");
    server.connect().is_echoed(b"served all the same");
}

// --- G3: the sandbox ---------------------------------------------------------------------------------------------------

/// All that a server does works inside the sandbox: every transport, the log, the counters, the report, the end.
#[test]
fn g3_a_sandboxed_server_can_do_all_that_it_needs() {
    if !has_sandbox() {
        return;
    }
    let directory = Dir::new();
    let addresses = [
        TCP,
        "udp://127.0.0.1:0",
        &directory.address("unix", "s"),
        &directory.address("unixgram", "d"),
    ];
    let (report, pid) = (directory.path("report.json"), directory.path("pid"));
    let flags = [
        "--sandbox=require",
        "-v",
        "--stats-json",
        report.to_str().unwrap(),
        "--pid-file",
        pid.to_str().unwrap(),
    ];
    let server = Serve::start(&addresses, &flags);
    for mode in ["NoNewPrivs", "Seccomp_filters"] {
        assert!(server.status(mode) > 0, "{mode}");
    }
    assert_eq!(server.status("Seccomp"), 2, "a filter of calls");
    for place in [0, 2] {
        let client = crate::support::connect(&server.endpoints[place]);
        let sent = noise(1, 3 << 20);
        let writer = client.try_clone().unwrap();
        let bytes = sent.clone();
        let writing = std::thread::spawn(move || {
            writer.say(&bytes);
            writer.finish();
        });
        crate::support::assert_same(&client.hear_all(), &sent);
        writing.join().unwrap();
    }
    let client = UdpSocket::bind("127.0.0.1:0").unwrap();
    client.set_read_timeout(Some(DEADLINE)).unwrap();
    client.connect(ip(&server.endpoints[1])).unwrap();
    client.send(b"by datagram").unwrap();
    let mut back = [0; 16];
    assert_eq!(client.recv(&mut back).unwrap(), 11);
    // Several that are queued are read by another system call than one.
    server.signal(Signal::SIGSTOP);
    for _ in 0..5 {
        client.send(b"by datagram").unwrap();
    }
    server.signal(Signal::SIGCONT);
    for _ in 0..5 {
        assert_eq!(client.recv(&mut back).unwrap(), 11);
    }
    // Senders of Unix datagrams have names outside the sandbox's directories, or abstract ones.
    for name in [Some(directory.path("c")), None] {
        let client = match &name {
            Some(path) => UnixDatagram::bind(path).unwrap(),
            None => {
                use std::os::linux::net::SocketAddrExt;
                let name = format!("echo-g3-{}", std::process::id());
                let name = std::os::unix::net::SocketAddr::from_abstract_name(name).unwrap();
                UnixDatagram::bind_addr(&name).unwrap()
            }
        };
        client.set_read_timeout(Some(DEADLINE)).unwrap();
        client.send_to(b"and by name", directory.path("d")).unwrap();
        assert_eq!(client.recv(&mut back).unwrap(), 11);
    }
    assert_eq!(server.counter("datagrams_out"), 8);
    let end = server.stop(Signal::SIGTERM);
    assert_eq!(end.code, 0, "{}", end.err);
    assert!(
        fs::read_to_string(report)
            .unwrap()
            .contains("datagrams_out")
    );
    for name in ["s", "d", "pid"] {
        assert!(!directory.path(name).exists(), "{name} is left");
    }
}

/// A service manager is told of the end, too, by the socket that was opened before the sandbox was entered; and SIGUSR2
/// is ignored, since no process can be started.
#[test]
fn g3_a_sandboxed_server_tells_its_manager_and_starts_no_process() {
    if !has_sandbox() {
        return;
    }
    let directory = Dir::new();
    let by_file = UnixDatagram::bind(directory.path("notify")).unwrap();
    let file = directory.path("notify").display().to_string();
    let name = format!("echo-g3-manager-{}", std::process::id());
    let by_name = {
        use std::os::linux::net::SocketAddrExt;
        let address = std::os::unix::net::SocketAddr::from_abstract_name(&name).unwrap();
        UnixDatagram::bind_addr(&address).unwrap()
    };
    for (manager, address) in [(by_file, file), (by_name, format!("@{name}"))] {
        manager.set_read_timeout(Some(DEADLINE)).unwrap();
        let mut command = program();
        command.args(["serve", TCP, "--sandbox=require"]);
        let server = Serve::start_command(command.env("NOTIFY_SOCKET", &address), 1);
        let hear = || {
            let mut told = [0; 64];
            let length = manager.recv(&mut told).unwrap();
            String::from_utf8_lossy(&told[..length]).into_owned()
        };
        assert_eq!(hear(), "READY=1");
        server.signal(Signal::SIGUSR2);
        server.says("SIGUSR2 is ignored");
        server.connect().is_echoed(b"and served on");
        assert_eq!(server.stop(Signal::SIGTERM).code, 0);
        assert_eq!(hear(), "STOPPING=1");
    }
}

/// The call is injected from outside, since the program has no way to make a call that is not its own: the tracer puts
/// another number in place of the server's first `sendto`, as an attacker in control of the process would.
#[test]
fn g3_a_call_that_is_not_on_the_list_kills_the_process() {
    if !has_sandbox() {
        return;
    }
    for flags in [&["--sandbox"][..], &[]] {
        let Some(mut command) = strace("sendto", "retval=0:syscall=getppid:when=1") else {
            return;
        };
        let server = Serve::start_command(command.args(["serve", TCP]).args(flags), 1);
        let client = server.connect();
        client.say(b"x");
        if flags.is_empty() {
            // Without the sandbox that byte is lost, and the server goes on: so it is the sandbox that kills.
            let another = server.connect();
            another.is_echoed(b"alive");
        } else {
            assert_eq!(server.killed_by(), Some(Signal::SIGSYS as i32));
            assert!(try_connect(&client.peer_addr().unwrap()).is_err());
        }
    }
}

#[test]
fn g3_a_kernel_that_is_too_old_is_a_warning_or_with_require_a_refusal() {
    if !has_sandbox() {
        return;
    }
    let kernels = [
        ("landlock_create_ruleset", "error=ENOSYS", "no Landlock"),
        (
            "landlock_create_ruleset",
            "error=EOPNOTSUPP",
            "switched off",
        ),
        (
            "landlock_create_ruleset",
            "retval=3:when=1",
            "ABI 3 is too old",
        ),
        (
            "landlock_restrict_self",
            "error=EPERM",
            "Landlock was refused",
        ),
        ("seccomp", "error=EINVAL", "seccomp was refused"),
    ];
    for (call, answer, words) in kernels {
        let Some(mut command) = strace(call, answer) else {
            return;
        };
        let refused = ended(command.args(["serve", TCP, "--sandbox=require", "-q"]));
        refused.failed(71, &["--sandbox=require", words]);
        let mut command = strace(call, answer).unwrap();
        let server = Serve::start_command(command.args(["serve", TCP, "--sandbox"]), 1);
        server.says("WARN  the sandbox is not complete");
        server.says(words);
        server.connect().is_echoed(b"served all the same");
        assert_eq!(server.stop(Signal::SIGTERM).code, 0, "{call} {answer}");
    }
}

#[test]
fn g3_the_blocking_models_have_no_sandbox() {
    for model in ["threads", "iterative"] {
        let refused = ended(program().args(["serve", TCP, "--sandbox", "--model", model]));
        refused.failed(64, &["--sandbox needs --model reactor", model]);
    }
}

// --- G4: exposure to the network ---------------------------------------------------------------------------------------

/// UDP is served only where it is named, and beyond this machine only with a flag of its own: the source of a datagram
/// can be forged, so an open echo server can be turned against a third party. TCP verifies its sources by the
/// handshake, so there naming the address is enough, and one line in the log mentions it.
#[test]
fn g4_exposure_has_to_be_asked_for() {
    if !has_ipv6() {
        return;
    }
    for address in [
        "udp://0.0.0.0:0",
        "udp://:0",
        "udp://[::]:0",
        "udp://192.0.2.1:7",
    ] {
        let ended = ended(program().args(["serve", "127.0.0.1:0", address]));
        ended.failed(64, &["UDP", "--allow-public-udp", "udp://127.0.0.1:"]);
    }
    let loopback = [
        "udp://127.0.0.1:0",
        "udp://[::1]:0",
        "unixgram://@g4-is-no-network",
    ];
    let server = Serve::start(&loopback, &[]);
    assert!(!server.err().contains("WARN"), "{}", server.err());
    assert_eq!(server.stop(Signal::SIGTERM).code, 0);

    let server = Serve::start(&[":0", "udp://:0"], &["--allow-public-udp"]);
    assert!(
        !server.err().contains("other machines"),
        "the flag says that it is intended"
    );
    assert_eq!(server.stop(Signal::SIGTERM).code, 0);

    let server = Serve::start(&[":0"], &[]);
    server.says("can be reached from other machines");
    server.connect().is_echoed(b"TCP is served");
    let port = ip(&server.endpoints[0]).port();
    let datagrams = UdpSocket::bind("127.0.0.1:0").unwrap();
    datagrams.connect(("127.0.0.1", port)).unwrap();
    datagrams.send(b"UDP is not").unwrap();
    datagrams.set_read_timeout(Some(DEADLINE)).unwrap();
    let error = datagrams.recv(&mut [0; 16]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
    assert_eq!(server.stop(Signal::SIGTERM).code, 0);
}

/// Whether this build and this machine have the whole sandbox.
fn has_sandbox() -> bool {
    let mut tried = program();
    // The address cannot be bound, so the start ends after the command line is read; only the message about the sandbox
    // is checked.
    let server = Serve::spawn(tried.args(["serve", TCP, "--sandbox=require"]));
    let has = server.listens();
    if !has {
        skip("this machine or this build has no complete sandbox");
    }
    has
}
