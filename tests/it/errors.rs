//! Errors of the library, as a caller prints them.
//!
//! What may live in this file: what holds of every error type. What each says is tested where it is made.

use echo_reactor::blocking;
use echo_reactor::echo::{Server, StartError};
use echo_reactor::net::{Address, BindError, BoundSocket, Endpoint, IpNet};
use echo_reactor::{Limits, net::FromFdError};
use std::error::Error;
use std::io;

/// One of each kind that has something behind it, and of each that has not.
fn errors() -> Vec<Box<dyn Error>> {
    let address = || "127.0.0.1:9".parse::<Address>().unwrap();
    let endpoint = || Endpoint::Tcp("127.0.0.1:9".parse().unwrap());
    // One of the system, and one with a text of ours.
    let io_errors = || {
        [
            io::Error::from(nix::errno::Errno::ECONNREFUSED),
            io::Error::other("a text"),
        ]
    };
    let wrong = Limits::default().with(|limits| limits.read_budget_bytes = 0);
    let mut errors: Vec<Box<dyn Error>> = vec![
        Box::new("nowhere".parse::<Address>().unwrap_err()),
        Box::new("10.0.0.0/99".parse::<IpNet>().unwrap_err()),
        Box::new(wrong.check().unwrap_err()),
        Box::new(StartError::Limit(wrong.check().unwrap_err())),
        Box::new(blocking::StartError::Limit(wrong.check().unwrap_err())),
        Box::new(blocking::StartError::Datagrams(address())),
        Box::new(BindError::NoAddress),
        Box::new(BoundSocket::from_fd(std::fs::File::open("/dev/null").unwrap()).unwrap_err()),
        Box::new(Server::bind([""; 0], Limits::default()).unwrap_err()),
    ];
    for error in io_errors()
        .into_iter()
        .chain(io_errors().map(io::Error::other))
    {
        let copy = || io::Error::new(error.kind(), error.to_string());
        errors.push(Box::new(BindError::Resolve(address(), copy())));
        errors.push(Box::new(BindError::Bind(endpoint(), copy())));
        errors.push(Box::new(StartError::Bind(BindError::Bind(
            endpoint(),
            copy(),
        ))));
        errors.push(Box::new(blocking::StartError::Bind(BindError::Bind(
            endpoint(),
            copy(),
        ))));
        errors.push(Box::new(StartError::Reactor(copy())));
        errors.push(Box::new(FromFdError::System(error)));
    }
    errors
}

#[test]
fn an_error_and_its_sources_say_nothing_twice() {
    for error in errors() {
        let mut said = vec![error.to_string()];
        let mut source = error.source();
        while let Some(error) = source {
            let text = error.to_string();
            let is_new = said.iter().all(|earlier| !earlier.contains(&text));
            assert!(is_new, "{text:?} has been said: {said:?}");
            said.push(text);
            source = error.source();
        }
    }
}
