//! The program of a master is replaced, or a new one fails.

use super::{TCP, children, churn, replace, serve, write_program, zombies};
use crate::support::{DEADLINE, Dir, Serve, Talk, connect, exists, ip, noise, wait_until};
use nix::sys::signal::Signal;
use serde_json::Value;
use socket2::Socket;
use std::fs;
use std::net::UdpSocket;
use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

/// A server whose program on disk is a link, so that another one can be put in its place.
struct Replaceable {
    server: Serve,
    directory: Dir,
    program: PathBuf,
}

impl Replaceable {
    #[track_caller]
    fn start(flags: &[&str]) -> Self {
        let directory = Dir::new();
        let program = directory.path("echo-reactor");
        symlink(env!("CARGO_BIN_EXE_echo-reactor"), &program).unwrap();
        let mut command = Command::new(&program);
        command
            .args(["serve", TCP, "--workers", "2"])
            .args(flags)
            .arg("--pid-file")
            .arg(directory.path("pid"))
            .env_remove("RUST_LOG")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        Self {
            server: Serve::start_command(&mut command, 1),
            directory,
            program,
        }
    }

    fn pid_in_file(&self) -> String {
        fs::read_to_string(self.directory.path("pid")).unwrap()
    }

    /// SIGUSR2 has no effect but a line that gives the reason.
    #[track_caller]
    fn fails(&self, why: &str) {
        let client = self.server.connect();
        client.is_echoed(b"before");
        let workers = children(self.server.pid());
        let lines = |text: &str| {
            text.matches("the replacement failed, and nothing has changed")
                .count()
        };
        let before = lines(&self.server.err());
        self.server.signal(Signal::SIGUSR2);
        wait_until("it says so", || lines(&self.server.err()) > before);
        let said = self.server.err();
        let last = said
            .lines()
            .rfind(|line| line.contains("the replacement failed"));
        assert!(last.unwrap().contains(why), "{last:?} does not say {why:?}");
        wait_until("the same workers are left", || {
            children(self.server.pid()) == workers
        });
        client.is_echoed(b"after");
        self.server.connect().is_echoed(b"and a new client");
    }
}

#[test]
fn w6_a_replaced_program_keeps_its_process_its_sockets_and_its_clients() {
    let directory = Dir::new();
    let json = directory.path("stats.json");
    let unix = directory.address("unix", "s");
    let (pid_file, gram) = (directory.path("pid"), directory.address("unixgram", "d"));
    let flags = [
        "--stats-json",
        json.to_str().unwrap(),
        "--pid-file",
        pid_file.to_str().unwrap(),
    ];
    let server = serve(2, &[TCP, "udp://127.0.0.1:0", &unix, &gram], &flags);
    let inside: Vec<Socket> = [0, 2].map(|place| connect(&server.endpoints[place])).into();
    let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
    udp.set_read_timeout(Some(DEADLINE)).unwrap();
    udp.connect(ip(&server.endpoints[1])).unwrap();
    let mut accepted = 2;
    for generation in 0..3 {
        inside
            .iter()
            .for_each(|client| client.is_echoed(b"from the beginning"));
        for place in [0, 2] {
            let client = connect(&server.endpoints[place]);
            client.is_echoed(&noise(generation, 1_000));
            accepted += 1;
        }
        udp.send(b"datagram").unwrap();
        assert_eq!(udp.recv(&mut [0; 16]).unwrap(), 8);
        replace(&server);
        assert_eq!(
            fs::read_to_string(&pid_file).unwrap(),
            format!("{}\n", server.pid())
        );
    }
    assert_eq!(
        server.counter("accepted"),
        accepted,
        "counted over all programs"
    );
    inside
        .iter()
        .for_each(|client| client.is_echoed(b"still inside"));
    drop(inside);
    wait_until("the old workers have ended", || {
        children(server.pid()).len() == 2
    });
    wait_until("no zombie is left", || zombies(server.pid()) == 0);
    let ended = server.stop(Signal::SIGTERM);
    assert_eq!((ended.code, ended.out.as_str()), (0, ""), "{}", ended.err);
    for left in ["s", "d", "pid"] {
        assert!(!exists(&directory.path(left)), "{left} is left");
    }
    let report: Value = serde_json::from_str(&fs::read_to_string(json).unwrap()).unwrap();
    assert_eq!(report["accepted"], accepted);
    assert_eq!(report["workers"][0]["processes"], 4);
    assert_eq!(report["workers"][0]["unreported"], 0);
}

#[test]
fn w6_twenty_listeners_of_each_kind_are_replaced_under_load() {
    let directory = Dir::new();
    let files: Vec<String> = (0..20)
        .map(|n| directory.address("unix", &n.to_string()))
        .collect();
    let addresses: Vec<&str> = [TCP, "udp://127.0.0.1:0"]
        .into_iter()
        .cycle()
        .take(40)
        .chain(files.iter().map(String::as_str))
        .collect();
    let server = serve(2, &addresses, &[]);
    let stop = AtomicBool::new(false);
    let cut = thread::scope(|scope| {
        let to = [0, 38, 40, 59].map(|place| &server.endpoints[place]);
        let clients: Vec<_> = to.map(|to| scope.spawn(|| churn(to, &stop))).into();
        for _ in 0..5 {
            replace(&server);
        }
        stop.store(true, Ordering::Relaxed);
        let counts = clients.into_iter().map(|client| client.join().unwrap());
        counts.fold((0, 0), |sum, count| (sum.0 + count.0, sum.1 + count.1))
    });
    println!(
        "w6: {} connections served through 5 replacements of 60 listeners",
        cut.0
    );
    assert!(cut.0 > 0);
    assert_eq!(cut.1, 0, "none is cut");
    wait_until("the old workers have ended", || {
        children(server.pid()).len() == 2
    });
    let ended = server.stop(Signal::SIGTERM);
    assert_eq!(ended.code, 0, "{}", ended.err);
    assert_eq!(
        fs::read_dir(directory.path("")).unwrap().count(),
        0,
        "no file is left"
    );
}

#[test]
fn w6_connections_that_stay_too_long_with_an_old_worker_get_a_fin() {
    let flags = ["--retire-timeout", "1ms", "--drain-idle-timeout", "1ms"];
    let server = serve(2, &[TCP], &flags);
    let inside = server.connect();
    inside.is_echoed(b"in");
    replace(&server);
    assert_eq!(inside.hear_all(), b"", "a FIN, not a reset");
    drop(inside);
    wait_until("the old workers have ended", || {
        children(server.pid()).len() == 2
    });
    server.connect().is_echoed(b"the new ones serve");
}

#[test]
fn w7_a_new_program_that_fails_changes_nothing() {
    let one = Replaceable::start(&["--replace-timeout", "300ms"]);
    let program = &one.program;
    write_program(program, "#!/bin/sh\nexit 99\n");
    one.fails("ended with code 99 before it was ready");
    write_program(program, "#!/bin/sh\nexit 0\n");
    one.fails("ended with code 0 before it was ready");
    write_program(program, "#!/bin/sh\nkill -SEGV $$\n");
    one.fails("was killed by SIGSEGV before it was ready");
    write_program(program, "#!/bin/sh\nexec sleep 1000\n");
    one.fails("not ready in time");
    write_program(
        program,
        "#!/bin/sh\necho 'echo-reactor: error: system: of its own' >&2; exit 71\n",
    );
    one.fails("it has said why");
    write_program(program, "no program at all\n");
    one.fails("it cannot be started");
    fs::remove_file(program).unwrap();
    one.fails("it cannot be started: No such file or directory");
    wait_until("no zombie is left", || zombies(one.server.pid()) == 0);

    // When there is a working program again, it takes over.
    symlink(env!("CARGO_BIN_EXE_echo-reactor"), program).unwrap();
    replace(&one.server);
    one.server.connect().is_echoed(b"at last");
    assert_eq!(one.pid_in_file(), format!("{}\n", one.server.pid()));
    // A program whose script runs another one is replaced by that one.
    write_program(
        program,
        &format!(
            "#!/bin/sh\nexec {} \"$@\"\n",
            env!("CARGO_BIN_EXE_echo-reactor")
        ),
    );
    replace(&one.server);
    one.server.connect().is_echoed(b"by a script");
}

#[test]
fn w7_one_replacement_at_a_time_and_none_for_a_stopping_server() {
    let one = Replaceable::start(&["--replace-timeout", "1h"]);
    write_program(&one.program, "#!/bin/sh\nexec sleep 1000\n");
    one.server.signal(Signal::SIGUSR2);
    one.server.says("replacing the program by");
    one.server.signal(Signal::SIGUSR2);
    one.server.says("a replacement is under way already");
    one.server.connect().is_echoed(b"served meanwhile");
    one.server.signal(Signal::SIGTERM);
    one.server.says("the replacement failed");
    let Replaceable {
        server, directory, ..
    } = one;
    assert_eq!(server.wait().code, 0);
    assert!(!exists(&directory.path("pid")));
}

#[test]
fn w7_one_process_says_how_to_be_replaced() {
    for model in ["reactor", "threads", "iterative"] {
        let server = Serve::start(&[TCP], &["--model", model]);
        server.signal(Signal::SIGUSR2);
        server.says("SIGUSR2 is ignored: one process cannot replace itself");
        server.says("--workers");
        server.connect().is_echoed(b"still here");
    }
}
