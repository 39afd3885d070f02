//! Stage 8: what only Unix sockets have. The rules of the other stages are tried on them, too.

use crate::check::clients::Clients;
use crate::check::finding::{Broken, Finding, Limit};
use crate::check::process::Server;
use crate::check::rule::{Level, Needs, Rule, Trial};
use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};
use std::io::{self, IoSlice};
use std::os::fd::AsRawFd;

pub(super) const RULES: &[Rule] = &[Rule {
    id: "unix/descriptors/sent-along",
    level: Level::Must,
    stage: 8,
    asks: "bytes that follow a message with descriptors come back, too",
    source: "unix(7), SCM_RIGHTS: ancillary data is a barrier for the received data",
    by_hand: r#"python3 -c 'import socket as s; c=s.socket(s.AF_UNIX); c.connect("/tmp/echo.sock"); c.settimeout(2); s.send_fds(c,[b"a"],[0]); c.sendall(b"b"); print(c.recv(2,s.MSG_WAITALL))'"#,
    guide: "mistakes, Short reads",
    mistakes: &["short-read-on-unix"],
    needs: Needs::Unix,
    run: sent_along,
}];

fn sent_along(server: &mut Server, trial: &Trial<'_>) -> Result<Finding, Limit> {
    let mut clients = Clients::new(server, trial)?;
    // What goes wrong does so if both messages are there before the server reads the first: so, many times.
    for _ in 0..300 {
        let client = clients.connected()?;
        // One byte with a descriptor, outside of the client's own writes, and at once three more.
        let first = clients.expected(client, 1);
        let sent = clients.with_socket(client, |socket| {
            let descriptors = [socket.as_raw_fd()];
            let control = [ControlMessage::ScmRights(&descriptors)];
            let parts = [IoSlice::new(&first)];
            let flags = MsgFlags::empty();
            sendmsg::<()>(socket.as_raw_fd(), &parts, &control, flags, None)
                .map_err(io::Error::from)
        });
        if matches!(sent, Some(Ok(1))) {
            let state = clients.get(client);
            (state.sent, state.may_send) = (1, 1);
        }
        if let Some(broken) = clients.echo(client, 3)? {
            let sent = "a byte with a descriptor (SCM_RIGHTS), then 3 bytes".to_owned();
            return Ok(Finding::Broken(Broken { sent, ..broken }));
        }
    }
    Ok(Finding::holds())
}
