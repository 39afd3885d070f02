//! The server in event loops that are not its own. Each host does what the crate page says and nothing more: one turn
//! after each readiness of the descriptor. With the feature `timerfd` it looks at nothing else; without it, it waits no
//! longer than `Server::timeout()` says.
//!
//! What may live in this file: what must hold in every host. Nothing here is measured in time; what must not take
//! turns is counted in turns.

mod event_loops;

use echo_reactor::echo::{Config, Server, Turn};
use echo_reactor::net::Endpoint;
use echo_reactor::stats::{CloseReason, Stats};
use echo_reactor::{Limits, echo::Handle};
use event_loops::{Calloop, Host, Mio, Polling, Tokio};
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream, UdpSocket};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// A host that waits for so long, and hears nothing, was not told of something.
const DEADLINE: Duration = Duration::from_secs(20);
/// The number of the host's own source.
const OWN: usize = 1_000;

/// A host with its servers.
struct Loop<H> {
    host: H,
    servers: Vec<Option<Server>>,
    /// What is left of the servers that have finished, by number.
    finished: Vec<Option<Stats>>,
    turns: u64,
}

impl<H: Host> Loop<H> {
    fn new() -> Self {
        Self {
            host: H::new(),
            servers: Vec::new(),
            finished: Vec::new(),
            turns: 0,
        }
    }

    /// Starts a server, and returns where it listens.
    fn serve(&mut self, limits: Limits) -> SocketAddr {
        let server = Server::bind(["127.0.0.1:0"], limits).unwrap();
        let Endpoint::Tcp(address) = server.addresses()[0] else {
            panic!("TCP was asked for");
        };
        self.adopt(server);
        address
    }

    fn adopt(&mut self, server: Server) {
        let descriptor = server.as_fd().try_clone_to_owned().unwrap();
        self.host.watch(descriptor, self.servers.len());
        self.servers.push(Some(server));
        self.finished.push(None);
    }

    fn server(&mut self, number: usize) -> &mut Server {
        self.servers[number].as_mut().expect("not finished")
    }

    fn stats(&self, number: usize) -> &Stats {
        match &self.servers[number] {
            Some(server) => server.stats(),
            None => self.finished[number].as_ref().unwrap(),
        }
    }

    /// How long the host may wait: for ever, if the descriptor tells of deadlines.
    fn wait(&self) -> Option<Duration> {
        if cfg!(feature = "timerfd") {
            return None;
        }
        let servers = self.servers.iter().flatten();
        servers.filter_map(Server::timeout).min()
    }

    /// One iteration of the host. Returns whether its own source was ready.
    fn step(&mut self, max_wait: Duration) -> bool {
        let wait = self.wait();
        let mut ready = self
            .host
            .wait(wait.map_or(max_wait, |wait| wait.min(max_wait)));
        if !cfg!(feature = "timerfd") {
            let is_due = |server: &Option<Server>| {
                let timeout = server.as_ref().and_then(Server::timeout);
                timeout.is_some_and(|timeout| timeout.is_zero())
            };
            ready.extend((0..self.servers.len()).filter(|&number| is_due(&self.servers[number])));
        }
        for &number in ready.iter().filter(|&&number| number != OWN) {
            self.turn(number);
        }
        ready.contains(&OWN)
    }

    fn turn(&mut self, number: usize) {
        let Some(server) = &mut self.servers[number] else {
            return;
        };
        self.turns += 1;
        if server.turn(Some(Duration::ZERO)).unwrap() == Turn::Finished {
            assert_eq!(server.stats().check_invariants(), Ok(()));
            self.finished[number] = Some(server.stats().clone());
            self.servers[number] = None;
        }
    }

    /// The host waits for nothing but its descriptors.
    #[track_caller]
    fn until(&mut self, what: &str, mut is_so: impl FnMut(&Self) -> bool) {
        let began = Instant::now();
        while !is_so(self) {
            let name = H::NAME;
            assert!(began.elapsed() < DEADLINE, "{name}: never: {what}");
            self.step(DEADLINE);
        }
    }
}

/// Runs a test in every host.
macro_rules! in_every_host {
    ($($test:ident),*) => {$(
        mod $test {
            use super::*;

            #[test]
            fn mio() {
                super::$test::<Mio>();
            }

            #[test]
            fn polling() {
                super::$test::<Polling<0>>();
                super::$test::<Polling<1>>();
                super::$test::<Polling<2>>();
            }

            #[test]
            fn calloop() {
                super::$test::<Calloop<false>>();
                super::$test::<Calloop<true>>();
            }

            #[test]
            fn tokio() {
                super::$test::<Tokio>();
            }
        }
    )*};
}

in_every_host!(
    an_echo_comes_back,
    work_that_is_left_is_told_of_again,
    an_idle_connection_ends_while_the_host_has_timers_of_its_own,
    an_idle_connection_ends_though_the_host_does_nothing_else,
    a_flood_leaves_the_host_its_turns,
    an_idle_drain_ends,
    a_drain_with_a_quiet_client_ends,
    a_stop_ends,
    detached_listeners_end_a_server_without_clients,
    an_order_of_another_thread_wakes_the_host,
    a_finished_server_stays_readable,
    several_servers_live_in_one_loop
);

fn connect(address: SocketAddr) -> TcpStream {
    let client = TcpStream::connect(address).unwrap();
    client.set_read_timeout(Some(DEADLINE)).unwrap();
    client
}

fn an_echo_comes_back<H: Host>() {
    let mut host = Loop::<H>::new();
    let address = host.serve(Limits::default());
    let mut client = connect(address);
    for round in 1..=3 {
        client.write_all(b"hello").unwrap();
        host.until("echoed", |host| host.stats(0).bytes_out == 5 * round);
        let mut back = [0; 5];
        client.read_exact(&mut back).unwrap();
        assert_eq!(&back, b"hello");
    }
    drop(client);
    host.until("the end is seen", |host| {
        host.stats(0).connections_open == 0
    });
}

/// More are ready than one turn serves, and each has more to say than one turn reads. No new byte comes after that.
fn work_that_is_left_is_told_of_again<H: Host>() {
    const CLIENTS: u64 = 300;
    let limits = Limits::default().with(|limits| {
        limits.accept_budget = 16;
        limits.read_budget_bytes = 4;
        limits.read_buffer_bytes = 4;
    });
    let mut host = Loop::<H>::new();
    let address = host.serve(limits);
    let mut clients: Vec<TcpStream> = (0..CLIENTS).map(|_| connect(address)).collect();
    host.until("all are in", |host| {
        host.stats(0).connections_open == CLIENTS
    });
    for client in &mut clients {
        client.write_all(b"twelve bytes").unwrap();
    }
    host.until("echoed", |host| host.stats(0).bytes_out == 12 * CLIENTS);
    assert!(host.stats(0).budget_yields > 0, "there was work left");
}

fn idle() -> Limits {
    Limits::default().with(|limits| limits.idle_timeout = Some(Duration::from_millis(300)))
}

fn an_idle_connection_ends_while_the_host_has_timers_of_its_own<H: Host>() {
    let mut host = Loop::<H>::new();
    let address = host.serve(idle());
    let mut client = connect(address);
    client.write_all(b"x").unwrap();
    let mut timers = 0;
    let began = Instant::now();
    while host.stats(0).closed(CloseReason::Idle) == 0 {
        assert!(began.elapsed() < DEADLINE, "{}: idle for ever", H::NAME);
        host.step(Duration::from_millis(20));
        timers += 1;
    }
    assert!(timers > 1, "the host's timers came, too");
    assert!(began.elapsed() >= Duration::from_millis(300));
}

fn an_idle_connection_ends_though_the_host_does_nothing_else<H: Host>() {
    let mut host = Loop::<H>::new();
    let address = host.serve(idle());
    let mut client = connect(address);
    // Each byte moves the deadline.
    for round in 1..4 {
        client.write_all(b"x").unwrap();
        host.until("echoed", |host| host.stats(0).bytes_out == round);
        thread::sleep(Duration::from_millis(100));
    }
    host.until("it is idle", |host| {
        host.stats(0).closed(CloseReason::Idle) == 1
    });
}

/// The clients of the flood send as fast as they can, and the host's own source must be seen all the same.
fn a_flood_leaves_the_host_its_turns<H: Host>() {
    const PINGS: u64 = 50;
    let mut host = Loop::<H>::new();
    let address = host.serve(Limits::default());
    let (mut ping, own) = UnixStream::pair().unwrap();
    own.set_nonblocking(true).unwrap();
    host.host
        .watch(OwnedFd::from(own.try_clone().unwrap()), OWN);
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        for _ in 0..4 {
            let client = connect(address);
            scope.spawn(|| flood(client, &is_over));
        }
        let begun = host.turns + 100;
        host.until("the flood is there", |host| host.turns > begun);
        for _ in 0..PINGS {
            let before = host.turns;
            ping.write_all(b"p").unwrap();
            while !host.step(DEADLINE) {}
            let mut byte = [0; 8];
            while (&own).read(&mut byte).is_ok() {}
            let between = host.turns - before;
            let name = H::NAME;
            assert!(between <= 3, "{name}: a ping waited for {between} turns");
        }
        is_over.store(true, Ordering::Relaxed);
        host.until("the flood is over", |host| {
            host.stats(0).connections_open == 0
        });
    });
}

fn flood(client: TcpStream, is_over: &AtomicBool) {
    client.set_nonblocking(true).unwrap();
    let (chunk, mut back) = (vec![7; 1 << 16], vec![0; 1 << 16]);
    while !is_over.load(Ordering::Relaxed) {
        let results = [(&client).write(&chunk), (&client).read(&mut back)];
        for error in results.into_iter().filter_map(Result::err) {
            assert_eq!(error.kind(), ErrorKind::WouldBlock);
        }
    }
}

fn an_idle_drain_ends<H: Host>() {
    let mut host = Loop::<H>::new();
    host.serve(Limits::default());
    host.step(Duration::from_millis(1));
    host.server(0).drain();
    assert_eq!(host.server(0).timeout(), Some(Duration::ZERO));
    host.until("finished", |host| host.servers[0].is_none());
}

fn a_drain_with_a_quiet_client_ends<H: Host>() {
    let mut host = Loop::<H>::new();
    let address = host.serve(Limits::default());
    let mut client = connect(address);
    host.until("it is in", |host| host.stats(0).connections_open == 1);
    host.server(0).drain();
    thread::scope(|scope| {
        scope.spawn(|| {
            assert_eq!(client.read(&mut [0]).unwrap(), 0, "it gets FIN");
            drop(client);
        });
        host.until("finished", |host| host.servers[0].is_none());
    });
    assert_eq!(host.stats(0).closed(CloseReason::ShutDown), 1);
}

fn a_stop_ends<H: Host>() {
    let mut host = Loop::<H>::new();
    let address = host.serve(Limits::default());
    let _client = connect(address);
    host.until("it is in", |host| host.stats(0).connections_open == 1);
    host.server(0).stop();
    assert_eq!(host.server(0).timeout(), Some(Duration::ZERO));
    host.until("finished", |host| host.servers[0].is_none());
}

fn detached_listeners_end_a_server_without_clients<H: Host>() {
    let mut host = Loop::<H>::new();
    let address = host.serve(Limits::default());
    let client = connect(address);
    host.until("it is in", |host| host.stats(0).connections_open == 1);
    host.server(0).detach_listeners();
    client.shutdown(Shutdown::Write).unwrap();
    host.until("finished", |host| host.servers[0].is_none());

    host.serve(Limits::default());
    host.server(1).detach_listeners();
    host.until("finished at once", |host| host.servers[1].is_none());
}

fn an_order_of_another_thread_wakes_the_host<H: Host>() {
    for order in [Handle::drain, Handle::stop] {
        let mut host = Loop::<H>::new();
        host.serve(Limits::default());
        host.step(Duration::from_millis(1));
        let handle = host.server(0).handle();
        thread::scope(|scope| {
            scope.spawn(move || order(&handle));
            host.until("finished", |host| host.servers[0].is_none());
        });
    }
}

/// A host that throws `Turn::Finished` away, and watches for levels, is told again.
fn a_finished_server_stays_readable<H: Host>() {
    let mut host = Loop::<H>::new();
    host.serve(Limits::default());
    host.server(0).drain();
    let _ = host.server(0).turn(Some(Duration::ZERO)).unwrap();
    assert_eq!(host.server(0).timeout(), Some(Duration::ZERO));
    host.until("finished", |host| host.servers[0].is_none());
}

fn several_servers_live_in_one_loop<H: Host>() {
    let mut host = Loop::<H>::new();
    let addresses = [host.serve(idle()), host.serve(Limits::default())];
    let datagrams = Server::bind(["udp://127.0.0.1:0"], Config::default()).unwrap();
    let Endpoint::Udp(address) = datagrams.addresses()[0] else {
        panic!("UDP was asked for");
    };
    host.adopt(datagrams);
    let mut clients = addresses.map(connect);
    for client in &mut clients {
        client.write_all(b"x").unwrap();
    }
    let client = UdpSocket::bind("127.0.0.1:0").unwrap();
    client.send_to(b"x", address).unwrap();
    host.until("all are echoed", |host| {
        (0..2).all(|number| host.stats(number).bytes_out == 1) && host.stats(2).datagrams_out == 1
    });
    host.until("one is idle", |host| {
        host.stats(0).closed(CloseReason::Idle) == 1
    });
    assert_eq!(host.stats(1).connections_open, 1);
    for number in 0..3 {
        host.server(number).stop();
    }
    host.until("all are finished", |host| {
        host.servers.iter().all(Option::is_none)
    });
}
