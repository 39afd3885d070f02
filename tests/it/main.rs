//! The integration tests: one binary, one file for each kind of behaviour.

mod bench;
mod cli_send;
