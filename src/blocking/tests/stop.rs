//! How both models end: drained, stopped, and what becomes of the accept queue.

use super::*;

#[test]
fn draining_wakes_threads_blocked_in_accept() {
    everywhere(|model, address| {
        let server = Running::start(model, &[address], Limits::default());
        server.handle.drain();
        assert_eq!(server.end(), Stats::default());
    });
    // With several listeners, every thread: blocked in accept(2), or on its way there.
    let [_, unix] = families();
    let addresses = ["127.0.0.1:0", "127.0.0.1:0", "0.0.0.0:0", &unix];
    let server = Running::start(Model::ThreadPerConnection, &addresses, Limits::default());
    for endpoint in &server.endpoints {
        Client::connect(endpoint).asks(b"are you there?");
    }
    server.handle.drain();
    assert_eq!(server.end().accepted, 4);
}

#[test]
fn draining_sends_fin_to_idle_clients() {
    everywhere(|model, address| {
        let server = Running::start(model, &[address], Limits::default());
        let mut client = server.client();
        client.asks(b"one");
        assert_eq!(server.handle.stats().connections_open, 1);
        server.handle.drain();
        server.handle.drain();
        client.sees_the_end();
        let stats = server.end();
        assert_eq!(
            (stats.accepted, stats.closed(CloseReason::ShutDown)),
            (1, 1)
        );
        assert_eq!((stats.bytes_out, stats.discarded), (3, 0));
    });
}

#[test]
fn draining_ends_a_stream_in_full_flow() {
    everywhere(|model, address| {
        let limits = Limits {
            drain_timeout: Duration::from_secs(2),
            ..Limits::default()
        };
        let server = Running::start(model, &[address], limits);
        let mut client = server.client();
        let mut writer = client.0.try_clone().unwrap();
        let writing = thread::spawn(move || {
            let pattern: Vec<u8> = (0..=255).collect();
            while writer.write_all(&pattern).is_ok() {}
        });
        let (mut echo, mut drained) = (0_usize, false);
        let mut buffer = [0; 4096];
        while let Ok(length @ 1..) = client.0.read(&mut buffer) {
            let good = |(i, &byte): (usize, &u8)| byte == (echo + i) as u8;
            assert!(buffer[..length].iter().enumerate().all(good));
            echo += length;
            if !drained && echo > 1 << 20 {
                server.handle.drain();
                drained = true;
            }
        }
        drop(client);
        let stats = server.end();
        writing.join().unwrap();
        // Shut down if its queue was empty for a moment, else aborted at the drain timeout.
        let ours = stats.closed(CloseReason::ShutDown) + stats.closed(CloseReason::Aborted);
        assert_eq!((stats.accepted, ours), (1, 1), "{stats}");
        assert!(stats.bytes_out >= echo as u64);
    });
}

#[test]
fn a_stop_aborts_a_client_that_never_reads() {
    everywhere(|model, address| {
        let server = Running::start(model, &[address], small_buffers(Limits::default()));
        let mut client = server.client();
        client.clogs();
        server.handle.stop();
        let stats = server.end();
        assert_eq!((stats.accepted, stats.closed(CloseReason::Aborted)), (1, 1));
        assert!(stats.discarded > 0 && stats.bytes_out > 0, "{stats}");
    });
}

#[test]
fn draining_aborts_a_client_that_never_reads_at_the_timeout() {
    everywhere(|model, address| {
        let limits = Limits {
            drain_timeout: Duration::from_millis(100),
            ..Limits::default()
        };
        let server = Running::start(model, &[address], small_buffers(limits));
        let mut client = server.client();
        client.clogs();
        let begin = Instant::now();
        server.handle.drain();
        let stats = server.end();
        assert!(begin.elapsed() >= Duration::from_millis(100));
        assert_eq!((stats.accepted, stats.closed(CloseReason::Aborted)), (1, 1));
        assert!(stats.discarded > 0, "{stats}");
    });
}

#[test]
fn a_stop_overtakes_a_drain() {
    everywhere(|model, address| {
        let limits = Limits {
            drain_timeout: 10 * DEADLINE,
            ..Limits::default()
        };
        let server = Running::start(model, &[address], small_buffers(limits));
        let mut client = server.client();
        client.clogs();
        server.handle.drain();
        server.handle.stop();
        assert_eq!(server.end().closed(CloseReason::Aborted), 1);
    });
}

#[test]
fn the_kernel_wakes_every_accept_when_its_listener_is_shut_down() {
    for address in families() {
        let address: Address = address.parse().unwrap();
        let endpoint = address.resolve().unwrap().remove(0);
        let bound = BoundSocket::new(&endpoint, &BindOptions::default()).unwrap();
        let (sender, results) = mpsc::channel();
        // Three threads are in the call at the shutdown, or on their way to it; the fourth surely calls after it.
        thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| {
                    sender.send(None).unwrap();
                    sender
                        .send(Some(Stream::accept(&bound).map(|_| ())))
                        .unwrap();
                });
            }
            for _ in 0..3 {
                assert!(results.recv_timeout(DEADLINE).unwrap().is_none());
            }
            bound.socket.shutdown(Shutdown::Both).unwrap();
            sender
                .send(Some(Stream::accept(&bound).map(|_| ())))
                .unwrap();
            for _ in 0..4 {
                let error = results
                    .recv_timeout(DEADLINE)
                    .unwrap()
                    .unwrap()
                    .unwrap_err();
                assert_eq!(accept::classify(&error), AcceptError::Listener, "{error}");
            }
        });
    }
}

/// Limits under which the second connection waits in the accept queue, with either model.
fn one_at_once() -> Limits {
    Limits {
        connections_max: 1,
        ..Limits::default()
    }
}

/// One connection that is being served, and several behind it in the accept queue, each with a message sent.
fn served_and_queued(server: &Running, count: usize) -> (Client, Vec<Client>) {
    let mut served = server.client();
    served.asks(b"served");
    let queued = (0..count).map(|number| {
        let mut client = server.client();
        client
            .0
            .write_all(format!("queued {number}").as_bytes())
            .unwrap();
        client
    });
    let queued = queued.collect();
    (served, queued)
}

#[test]
fn draining_serves_what_is_in_the_accept_queue() {
    everywhere(|model, address| {
        let server = Running::start(model, &[address], one_at_once());
        let (mut served, queued) = served_and_queued(&server, 20);
        server.handle.drain();
        served.sees_the_end();
        drop(served);
        for (number, mut client) in queued.into_iter().enumerate() {
            let mut echo = String::new();
            client.0.read_to_string(&mut echo).unwrap();
            assert_eq!(echo, format!("queued {number}"), "{model:?} {address}");
        }
        let stats = server.end();
        assert_eq!(
            (stats.accepted, stats.closed(CloseReason::ShutDown)),
            (21, 21),
            "{stats}"
        );
        assert!(stats.accept_errors.is_empty(), "{stats}");
    });
}

#[test]
fn a_server_that_is_drained_before_it_runs_serves_its_queue() {
    everywhere(|model, address| {
        let server = Server::bind(model, [address], Limits::default()).unwrap();
        let mut client = Client::connect(&server.addresses()[0]);
        client.0.write_all(b"early").unwrap();
        server.handle().drain();
        let server = Running::run(server);
        let mut echo = String::new();
        client.0.read_to_string(&mut echo).unwrap();
        assert_eq!(echo, "early");
        assert_eq!(server.end().closed(CloseReason::ShutDown), 1);
    });
}

#[test]
fn what_is_still_queued_at_the_end_is_reset_and_counted() {
    everywhere(|model, address| {
        let server = Running::start(model, &[address], one_at_once());
        let (_served, queued) = served_and_queued(&server, 5);
        server.handle.stop();
        let stats = server.end();
        assert_eq!(stats.rejected(RejectReason::Stopping), 5, "{stats}");
        assert_eq!((stats.accepted, stats.closed(CloseReason::Aborted)), (1, 1));
        drop(queued);

        let limits = Limits {
            drain_timeout: Duration::from_millis(100),
            ..one_at_once()
        };
        let server = Running::start(model, &[address], small_buffers(limits));
        let (mut served, queued) = served_and_queued(&server, 5);
        served.clogs();
        server.handle.drain();
        let stats = server.end();
        assert_eq!(stats.rejected(RejectReason::Stopping), 5, "{stats}");
        assert_eq!((stats.accepted, stats.closed(CloseReason::Aborted)), (1, 1));
        drop(queued);
    });
}

/// The thread has announced accept(2) and has not called it when the stop comes: the shutdown that is to end the call
/// would reset the queue.
#[test]
fn waking_an_acceptor_loses_nothing_of_its_queue() {
    for address in families() {
        let address: Address = address.parse().unwrap();
        let endpoint = address.resolve().unwrap().remove(0);
        let acceptor = Acceptor::new(BoundSocket::new(&endpoint, &BindOptions::default()).unwrap());
        let connect = |_| Client::connect(&acceptor.bound.endpoint);
        let _clients: Vec<Client> = (0..3).map(connect).collect();
        acceptor.will_block();
        acceptor.wake();
        for _ in 0..3 {
            acceptor.accept().unwrap();
        }
        let verdict = accept::classify(&acceptor.accept().unwrap_err());
        let is_end = matches!(verdict, AcceptError::WouldBlock | AcceptError::Listener);
        assert!(is_end, "{verdict:?}");
    }
}
