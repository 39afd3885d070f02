//! Headers that `send` writes, read by `serve`.

use super::{counter, start};
use crate::support::{Dir, Ended, Serve, ended, program, unique};

#[track_caller]
fn run(command: &str, server: &Serve, arguments: &[&str]) -> Ended {
    let address = server.endpoints[0].to_string();
    let mut program = program();
    program.arg(command).arg(address).args(arguments);
    ended(&mut program)
}

#[test]
fn send_declares_any_client() {
    let server = start(&["-v"]);
    for (header, connected) in [
        ("v1", "Connected by 127.0.0.1:"),
        ("v2", "Connected by 127.0.0.1:"),
        ("v2,local", "Connected by 127.0.0.1:"),
        ("v1,local", "Connected by 127.0.0.1:"),
        (
            "v1,203.0.113.7:56324,192.0.2.1:443",
            "Connected by 203.0.113.7:56324, through the proxy 127.0.0.1:",
        ),
        (
            "v2,[2001:db8::7]:1,[2001:db8::1]:2",
            "Connected by [2001:db8::7]:1, through the proxy 127.0.0.1:",
        ),
    ] {
        let before = server.err().matches(connected).count();
        let sent = run("send", &server, &["--proxy", header, "one", "two"]);
        assert_eq!((sent.code, sent.err.as_str()), (0, ""), "{header}");
        assert_eq!(sent.out, "Received 'one'\nReceived 'two'\n");
        server.says(connected);
        let count = || server.err().matches(connected).count();
        assert_eq!(count(), before + 1, "{header}: {}", server.err());
    }
    let streamed = run("send", &server, &["-q", "--proxy", "v2", "-"]);
    assert_eq!((streamed.code, streamed.err.as_str()), (0, ""));
    let plain = run("send", &server, &[]);
    assert!(plain.code != 0 && plain.err.contains("reset"), "{plain:?}");
    assert_eq!(counter(&server, "proxy_headers"), 7);
}

#[test]
fn send_declares_names_of_unix_sockets() {
    let directory = Dir::new();
    let address = directory.address("unix", "echo");
    let flags = ["--proxy-protocol", "require", "--proxy-from", "unix", "-v"];
    let server = Serve::start(&[&address], &flags);
    let source = format!("@{}", unique());
    for header in ["v1", "v2"] {
        let sent = run("send", &server, &["--proxy", header, "--source", &source]);
        assert_eq!((sent.code, sent.err.as_str()), (0, ""), "{header}");
    }
    let own = format!("Connected by unix:{source}\n");
    assert_eq!(server.err().matches(&own).count(), 2, "{}", server.err());
    assert_eq!(counter(&server, "proxy_headers"), 2);
}

#[test]
fn what_has_no_header_or_no_version_is_refused() {
    for (arguments, words) in [
        ("udp://127.0.0.1:7 --proxy v2", "datagrams have no header"),
        ("127.0.0.1:7 --proxy v3", "v2,203.0.113.7:56324"),
        ("127.0.0.1:7 --proxy v2,1.2.3.4:5,[::1]:6", "one family"),
    ] {
        let mut send = program();
        send.arg("send").args(arguments.split(' '));
        ended(&mut send).failed(64, &[words]);
    }
}
