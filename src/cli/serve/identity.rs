//! `--reply identity`: who has answered, as a JSON object for each line of a stream and each datagram.
//!
//! The names are those of echo-basic, the server of the conformance tests of Kubernetes' Gateway API, and so are the
//! variables that fill them in; its answers over UDP have the same form. `peer` is an addition: the address that this server
//! has the request from, which is a proxy's unless the PROXY protocol declares the client's.

use crate::cli::error::CliError;
use crate::echo::{REQUEST_BYTES_MAX, Responder};
use crate::net::Peer;
use clap::ValueEnum;
use serde::Serialize;
use std::borrow::Cow;
use std::sync::Arc;

/// The value of `--reply`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(super) enum Reply {
    /// The bytes that were sent
    #[default]
    Echo,
    /// {"request", "namespace", "ingress", "service", "pod", "peer"}
    Identity,
}

impl Reply {
    /// What makes the answers, unless they are echoes.
    pub(super) fn responder(self) -> Option<Arc<dyn Responder>> {
        match self {
            Self::Echo => None,
            Self::Identity => Some(Arc::new(Identity::from_environment())),
        }
    }

    /// Refuses answers beside what is for echoes alone.
    pub(super) fn check(self, has_trace: bool, fault: Option<&str>) -> Result<(), CliError> {
        let (flag, why) = match (has_trace, fault) {
            _ if self == Self::Echo => return Ok(()),
            (true, _) => ("--trace", "a trace tells which code has echoed what"),
            (false, Some(fault)) => (fault, "faults to order are those of an echo"),
            (false, None) => return Ok(()),
        };
        Err(CliError::usage(format!(
            "--reply identity and {flag} exclude each other: {why}; leave one of them out"
        )))
    }
}

/// Who answers.
#[derive(Debug, Serialize)]
struct Identity {
    namespace: String,
    ingress: String,
    service: String,
    pod: String,
}

impl Identity {
    fn from_environment() -> Self {
        let variable = |name| match std::env::var_os(name) {
            Some(value) => value.to_string_lossy().into_owned(),
            None => String::new(),
        };
        Self {
            namespace: variable("NAMESPACE"),
            ingress: variable("INGRESS_NAME"),
            service: variable("SERVICE_NAME"),
            pod: variable("POD_NAME"),
        }
    }
}

#[derive(Serialize)]
struct Answer<'a> {
    /// What was sent; each part that is no UTF-8 becomes U+FFFD, as in echo-basic.
    request: Cow<'a, str>,
    #[serde(flatten)]
    identity: &'a Identity,
    peer: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

impl Responder for Identity {
    fn respond(&self, request: Option<&[u8]>, peer: &Peer, answer: &mut Vec<u8>) {
        let too_long = || format!("the request is longer than {REQUEST_BYTES_MAX} bytes");
        let object = Answer {
            request: String::from_utf8_lossy(request.unwrap_or_default()),
            identity: self,
            peer: match peer {
                Peer::Unnamed => "unix:".to_owned(),
                named => named.to_string(),
            },
            error: request.is_none().then(too_long),
        };
        let _ = serde_json::to_writer(answer, &object); // to memory, and the keys are strings
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Random;
    use serde_json::{Value, json};

    fn identity() -> Identity {
        Identity {
            namespace: "default".to_owned(),
            ingress: String::new(),
            service: "echo".to_owned(),
            pod: "echo-0".to_owned(),
        }
    }

    fn answer(request: Option<&[u8]>) -> Vec<u8> {
        let mut answer = Vec::new();
        let peer = Peer::Ip("192.0.2.1:4711".parse().unwrap());
        identity().respond(request, &peer, &mut answer);
        answer
    }

    #[test]
    fn the_answer_is_that_of_echo_basic_with_the_peer() {
        let text = r#"{"request":"who?","namespace":"default","ingress":"","service":"echo","pod":"echo-0","peer":"192.0.2.1:4711"}"#;
        assert_eq!(answer(Some(b"who?")), text.as_bytes());
        let long: Value = serde_json::from_slice(&answer(None)).unwrap();
        assert_eq!(long["error"], "the request is longer than 4096 bytes");
        assert_eq!(
            (&long["request"], &long["pod"]),
            (&json!(""), &json!("echo-0"))
        );
    }

    /// The counters rely on it: what answers add is never negative.
    #[test]
    fn an_answer_is_one_line_and_longer_than_its_request_whatever_that_is() {
        let mut random = Random::new(1);
        for round in 0..5_000 {
            let length = random.below(if round % 100 == 0 { 5_000 } else { 40 });
            let most = [256, 128, 32][round % 3];
            let request: Vec<u8> = (0..length).map(|_| random.below(most) as u8).collect();
            let answer = answer(Some(&request));
            assert!(answer.len() > request.len() + 60 && !answer.contains(&b'\n'));
            let read: Value = serde_json::from_slice(&answer).unwrap();
            assert_eq!(read["request"], *String::from_utf8_lossy(&request));
        }
    }

    #[test]
    fn peers_of_unix_sockets_have_a_name_or_none() {
        let mut answer = Vec::new();
        identity().respond(Some(b""), &Peer::Unnamed, &mut answer);
        let read: Value = serde_json::from_slice(&answer).unwrap();
        assert_eq!(read["peer"], "unix:");
    }
}
