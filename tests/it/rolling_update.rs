//! A rolling update behind a balancer that learns late that a server ends: with `--drain-delay` no connect is refused.
//!
//! Three servers, each replaced in turn: the next one is started, the balancer takes it in when it is ready, and the old one
//! gets SIGTERM. The balancer asks `/readyz` of each and takes a server out a time after the answer was 503, as kube-proxy and
//! load balancers do that hear of an end by way of others. Clients connect to the balancer at planned times, each for one echo.
//!
//! The usual form takes a few seconds. ECHO_ROLLING_UPDATE=full is that of scripts/rolling-update: 3 s late, 2,000 connects a
//! second.

use crate::support::{DEADLINE, Serve, noise, wait_until};
use nix::sys::signal::Signal;
use socket2::{Domain, Socket, Type};
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

const SERVERS: usize = 3;
/// Clients at the same time, and connections that the balancer forwards at the same time.
const THREADS: usize = 32;
/// Time between two questions whether a server is ready.
const LOOK: Duration = Duration::from_millis(20);

struct Form {
    late: Duration,
    drain_delay: &'static str,
    /// Connects a second that are planned, and that have to be reached.
    rate: u32,
    rate_min: f64,
}

fn form() -> Form {
    if std::env::var("ECHO_ROLLING_UPDATE").is_ok_and(|form| form == "full") {
        return Form {
            late: Duration::from_secs(3),
            drain_delay: "5s",
            rate: 2_000,
            rate_min: 1_980.0,
        };
    }
    Form {
        late: Duration::from_millis(300),
        drain_delay: "1s",
        rate: 200,
        rate_min: 0.0, // a test does not measure speed
    }
}

// --- Servers -----------------------------------------------------------------------------------------------------------

/// A server, and where it tells whether it is ready.
struct Replica {
    server: Serve,
    address: SocketAddr,
    admin: SocketAddr,
}

impl Replica {
    fn start(drain_delay: &str) -> Self {
        const WORDS: &str = "health and metrics at http://";
        let delay = format!("--drain-delay={drain_delay}");
        let flags = [delay.as_str(), "--admin", "http://127.0.0.1:0"];
        let server = Serve::start(&["tcp://127.0.0.1:0"], &flags);
        server.says(WORDS);
        let err = server.err();
        let admin = err.split_once(WORDS).unwrap().1.lines().next().unwrap();
        Self {
            address: crate::support::ip(&server.endpoints[0]),
            admin: admin.parse().unwrap(),
            server,
        }
    }

    fn is_ready(admin: SocketAddr) -> io::Result<bool> {
        let mut stream = TcpStream::connect_timeout(&admin, DEADLINE)?;
        stream.set_read_timeout(Some(DEADLINE))?;
        stream.write_all(b"GET /readyz HTTP/1.0\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer.starts_with("HTTP/1.1 200 "))
    }
}

// --- The balancer ------------------------------------------------------------------------------------------------------

/// Forwards connections to servers in turn.
struct Balancer {
    listener: Socket,
    servers: Mutex<Vec<SocketAddr>>,
    turn: AtomicUsize,
    /// Connects that no server accepted, and connections that broke.
    refused: Mutex<Vec<String>>,
    is_over: AtomicBool,
}

impl Balancer {
    fn new() -> Self {
        let listener = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        listener.bind(&any.into()).unwrap();
        listener.listen(4_096).unwrap();
        Self {
            listener,
            servers: Mutex::default(),
            turn: AtomicUsize::new(0),
            refused: Mutex::default(),
            is_over: AtomicBool::new(false),
        }
    }

    fn address(&self) -> SocketAddr {
        self.listener.local_addr().unwrap().as_socket().unwrap()
    }

    fn has(&self, address: SocketAddr) -> bool {
        let servers = self.servers.lock().unwrap_or_else(PoisonError::into_inner);
        servers.contains(&address)
    }

    fn change(&self, change: impl FnOnce(&mut Vec<SocketAddr>)) {
        change(&mut self.servers.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// The server whose turn it is.
    fn next(&self) -> SocketAddr {
        let servers = self.servers.lock().unwrap_or_else(PoisonError::into_inner);
        servers[self.turn.fetch_add(1, Ordering::Relaxed) % servers.len()]
    }

    /// Forwards one connection after the other until the listener is shut down.
    fn forward(&self) {
        while let Ok((client, _)) = self.listener.accept() {
            if self.is_over.load(Ordering::Relaxed) {
                return;
            }
            let server = self.next();
            if let Err(error) = Self::exchange(client.into(), server) {
                let mut refused = self.refused.lock().unwrap_or_else(PoisonError::into_inner);
                refused.push(format!("{server}: {error}"));
            }
        }
    }

    /// Bytes to the server and back, to the end of both streams. What the client does wrong is no error of the server.
    fn exchange(mut client: TcpStream, server: SocketAddr) -> io::Result<()> {
        let mut server = TcpStream::connect_timeout(&server, DEADLINE)?;
        for stream in [&client, &server] {
            stream.set_nodelay(true)?;
            stream.set_read_timeout(Some(DEADLINE))?;
        }
        let mut bytes = [0; 4_096];
        while let Ok(length @ 1..) = client.read(&mut bytes) {
            server.write_all(&bytes[..length])?;
            server.read_exact(&mut bytes[..length])?;
            if client.write_all(&bytes[..length]).is_err() {
                break;
            }
        }
        server.shutdown(Shutdown::Write)?;
        match server.read(&mut bytes)? {
            0 => Ok(()),
            more => Err(io::Error::other(format!("{more} bytes too many"))),
        }
    }

    /// Takes the server out, `late` after it has said that it is not ready.
    fn watch(&self, admin: SocketAddr, address: SocketAddr, late: Duration) {
        while Replica::is_ready(admin).unwrap_or(false) {
            if self.is_over.load(Ordering::Relaxed) {
                return;
            }
            thread::sleep(LOOK);
        }
        if self.is_over.load(Ordering::Relaxed) {
            return;
        }
        thread::sleep(late);
        self.change(|servers| servers.retain(|server| *server != address));
    }

    fn end(&self) {
        self.is_over.store(true, Ordering::Relaxed);
        // accept(2) of every forwarder fails from now on.
        let _ = self.listener.shutdown(Shutdown::Both);
    }
}

// --- The load ----------------------------------------------------------------------------------------------------------

/// Clients that connect at planned times, each for one echo, until they are told to end.
struct Load {
    balancer: SocketAddr,
    rate: u32,
    begun: OnceLock<Instant>,
    planned: AtomicUsize,
    echoed: AtomicUsize,
    failed: Mutex<Vec<String>>,
    is_over: AtomicBool,
}

impl Load {
    fn new(balancer: SocketAddr, rate: u32) -> Self {
        Self {
            balancer,
            rate,
            begun: OnceLock::new(),
            planned: AtomicUsize::new(0),
            echoed: AtomicUsize::new(0),
            failed: Mutex::default(),
            is_over: AtomicBool::new(false),
        }
    }

    /// One client after the other, each at its time, or at once if that is over.
    fn run(&self) {
        let begun = *self.begun.get_or_init(Instant::now);
        while !self.is_over.load(Ordering::Relaxed) {
            let number = self.planned.fetch_add(1, Ordering::Relaxed);
            let due = begun + Duration::from_secs_f64(number as f64 / f64::from(self.rate));
            thread::sleep(due.saturating_duration_since(Instant::now()));
            match self.echo(number) {
                Ok(()) => _ = self.echoed.fetch_add(1, Ordering::Relaxed),
                Err(error) => {
                    let mut failed = self.failed.lock().unwrap_or_else(PoisonError::into_inner);
                    failed.push(format!("client {number}: {error}"));
                }
            }
        }
    }

    /// Connects, sends, reads the echo and then the FIN.
    fn echo(&self, number: usize) -> io::Result<()> {
        let mut stream = TcpStream::connect_timeout(&self.balancer, DEADLINE)?;
        stream.set_read_timeout(Some(DEADLINE))?;
        let sent = noise(number as u64, 64);
        stream.write_all(&sent)?;
        stream.shutdown(Shutdown::Write)?;
        let mut echoed = Vec::new();
        stream.read_to_end(&mut echoed)?;
        if echoed == sent {
            Ok(())
        } else {
            Err(io::Error::other(format!(
                "{} bytes came back",
                echoed.len()
            )))
        }
    }
}

// --- The update --------------------------------------------------------------------------------------------------------

/// What an update has come to.
struct Seen {
    connects: usize,
    per_second: f64,
    /// By a server, and what clients saw of it.
    refused: Vec<String>,
    failed: Vec<String>,
}

/// Ends the threads of both, after a panic too.
struct End<'a>(&'a Balancer, &'a Load);

impl Drop for End<'_> {
    fn drop(&mut self) {
        self.1.is_over.store(true, Ordering::Relaxed);
        self.0.end();
    }
}

/// Replaces each of the servers under load.
fn update(form: &Form, drain_delay: &str) -> Seen {
    let balancer = &Balancer::new();
    let load = &Load::new(balancer.address(), form.rate);
    let seconds = thread::scope(|scope| {
        let _ends = End(balancer, load);
        for _ in 0..THREADS {
            scope.spawn(|| balancer.forward());
        }
        let add = || {
            let replica = Replica::start(drain_delay);
            assert!(Replica::is_ready(replica.admin).unwrap());
            let (admin, address) = (replica.admin, replica.address);
            balancer.change(|servers| servers.push(address));
            scope.spawn(move || balancer.watch(admin, address, form.late));
            replica
        };
        let mut replicas: Vec<Replica> = (0..SERVERS).map(|_| add()).collect();
        let clients: Vec<_> = (0..THREADS).map(|_| scope.spawn(|| load.run())).collect();
        let goes_on = || {
            let before = load.echoed.load(Ordering::Relaxed);
            let enough = before + form.rate as usize / 4;
            wait_until("clients are served", || {
                load.echoed.load(Ordering::Relaxed) >= enough
            });
        };
        goes_on();
        for _ in 0..SERVERS {
            replicas.push(add());
            let old = replicas.remove(0);
            let ended = old.server.stop(Signal::SIGTERM);
            assert_eq!(ended.code, 0, "{}", ended.err);
            wait_until("the balancer has learnt of it", || {
                !balancer.has(old.address)
            });
        }
        goes_on();
        load.is_over.store(true, Ordering::Relaxed);
        clients
            .into_iter()
            .for_each(|client| client.join().unwrap());
        load.begun.get().unwrap().elapsed().as_secs_f64()
    });
    let connects = load.echoed.load(Ordering::Relaxed);
    Seen {
        connects,
        per_second: connects as f64 / seconds,
        refused: std::mem::take(&mut balancer.refused.lock().unwrap()),
        failed: std::mem::take(&mut load.failed.lock().unwrap()),
    }
}

#[test]
fn no_connect_is_refused_during_a_rolling_update() {
    let form = form();
    let seen = update(&form, form.drain_delay);
    println!(
        "rolling update of {SERVERS} servers, {:?} late: {} connects, {:.0} a second, {} refused",
        form.late,
        seen.connects,
        seen.per_second,
        seen.refused.len()
    );
    assert_eq!((seen.refused, seen.failed), (Vec::new(), Vec::new()));
    assert!(
        seen.per_second >= form.rate_min,
        "not valid: this machine did not reach {} connects a second",
        form.rate
    );
}

/// What the delay is for, and that this test would notice a refused client.
#[test]
fn without_a_delay_connects_are_refused() {
    let seen = update(&form(), "0");
    let is_refused = |text: &String| text.contains("refused");
    assert!(seen.refused.iter().any(is_refused), "{:?}", seen.refused);
    assert!(!seen.failed.is_empty(), "clients notice");
}
