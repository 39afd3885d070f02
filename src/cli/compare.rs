//! `echo-reactor compare`: the event loop against its blocking twins, and against anybody else's server.
//!
//! What may live in this file: the order of the steps. The data of a comparison is in [`record`].

// Until the command is wired to it, tests alone use it.
#[allow(dead_code)]
mod html;
// The same.
#[allow(dead_code)]
mod record;
