//! What a connection costs, and what stops them from being more. No code lives here.
//!
//! One million connections in one process is a matter of arithmetic. This page does the sums, in the order in which a
//! machine forces you to. `echo-reactor doctor --connections 1M` does them for yours.
//!
//! # One idle connection
//!
//! Measured on Linux 6.18, 64 bits, over loopback. "End" is one side: a server pays for its own, and a machine that
//! runs both sides pays twice.
//!
//! | who | what | bytes of one end |
//! |---|---|---|
//! | kernel | `struct tcp_sock`: state, timers, sequence numbers | 2,520 |
//! | kernel | the socket and its inode | 862 |
//! | kernel | `struct file`, which the descriptor points to | 195 |
//! | kernel | its directory entry, since a socket is a file | 195 |
//! | kernel | epoll's item: who waits for it, and for what | 128 |
//! | **kernel** | **in all** | **about 3,900** |
//! | server, event loop | a slot of the slab: the stream, its tail (none), two deadline links, a serial | **48** |
//! | server, thread for each | a stack of which five pages are touched, and 16 KiB of the kernel's for the thread | **about 37,000** |
//! | `bench` | the state of a client: its pattern, its clock, its counters | about 220 |
//!
//! Sizes of the kernel's objects are those of `/proc/slabinfo` with the room lost between them: `pages × 4096 /
//! objects`. The server's are resident memory (RSS) over 15,000 connections: 54 bytes for each, of which 48 are the
//! slot and the rest the tables that grow with it ([`reactor`](crate::reactor)).
//!
//! So **the kernel costs eighty times as much as the event loop**, and no server in user space can change that: a
//! million idle connections are 3.9 GB of kernel memory at one end, whoever serves them, and 64 MB in the server. A
//! program that gives each connection a buffer of 4 KiB doubles the kernel's figure; one that gives each a thread
//! multiplies it by ten. That is the whole case for owning no buffer while nothing is unsent
//! ([`echo::connection`](crate::echo::connection)).
//!
//! # One busy connection
//!
//! Data on its way lies in socket buffers, which the kernel hands out by pages: an echo of 64 bytes holds a page of 4
//! KiB while it waits at one of the ends. A peer that reads in time holds it for microseconds. A peer that sends and
//! does not read fills its own send buffer, the server's receive buffer, the server's send buffer and its own receive
//! buffer: up to `tcp_rmem[2] + tcp_wmem[2]` at the server, 36 MiB on a machine with 32 and 4 MiB. The server adds one
//! scratch (64 KiB) to that and no more; what the kernel adds is what `--hardened` bounds.
//!
//! # The limits, in the order in which they are met
//!
//! | limit | usual | what it looks like when it is met | what widens it |
//! |---|---|---|---|
//! | descriptors of a process, soft | 1,024 | `accept`: EMFILE | the program, by itself |
//! | descriptors of a process, hard | 4,096 to 524,288 | the same | `LimitNOFILE=`, limits.conf, `--ulimit` |
//! | `fs.nr_open` | 1,048,576 | the hard limit cannot be raised | `sysctl` |
//! | tuples, at the client | 28,232 | `connect`: EADDRNOTAVAIL | more source addresses, more targets |
//! | accept queue (`net.core.somaxconn`) | 4,096 | a connect that takes 1 s, then 3, then 7 | `sysctl`, and a backlog that asks for it |
//! | `nf_conntrack_max` | 65,536 to 262,144 | packets vanish; one line in the kernel's log | `sysctl`, or no tracking for that port |
//! | memory of a control group | what was asked for | the process is killed | `MemoryMax=`, `--memory` |
//! | `net.ipv4.tcp_mem` | an eighth of the memory | buffers shrink, then sockets are closed | `sysctl` |
//! | `fs.file-max` | a tenth of the memory in KiB | `accept`: ENFILE, for everybody | `sysctl` |
//! | `fs.epoll.max_user_watches` | 4 % of the memory | `epoll_ctl`: ENOSPC | `sysctl` |
//! | memory | | the kernel looks for somebody to kill | more of it |
//! | [`connections_max`](crate::Limits::connections_max) | 1,000,000 | new connections wait in the accept queue | `--connections`, up to 4M |
//!
//! Note who is told. Of these only EMFILE, ENFILE and ENOSPC reach the server, which pauses and says which it was
//! ([`echo::accept_gate`](crate::echo::accept_gate)); the rest shows at the client, often as nothing but time. Most "the
//! server fell over at 28,000 connections" is the third row from the client's side.
//!
//! # The arithmetic of tuples
//!
//! A TCP connection is named by four numbers: source address, source port, destination address, destination port. No
//! two connections that exist at once have all four in common. The server fixes two of them; the client chooses its
//! port out of `net.ipv4.ip_local_port_range`, by default 32,768 to 60,999:
//!
//! ```text
//! connections <= source addresses x 28,232 ports x (destination addresses x destination ports)
//!
//! 1,000,000  =   36 addresses     x 28,232 x 1        bench --source 127.0.0.0/16
//! 1,000,000  =    1 address       x 28,232 x 36       36 listeners
//! 1,000,000  =   16 addresses     x 64,512 x 1        ... with the range widened to 1024-65535
//! ```
//!
//! The server's side has no such limit: its port is one, however many have connected to it. That a server "runs out of
//! ports" at 65,536 clients is a legend; its *clients* do, if all of them are one machine with one address.
//!
//! Two more things are needed at the client. Several source addresses must be bound *late*: a plain `bind` to an
//! address takes the port for all destinations, `IP_BIND_ADDRESS_NO_PORT` leaves that to `connect`. And whoever closes
//! first keeps the tuple for a minute more (TIME_WAIT): 28,232 / 60 s are 470 connections a second from one address to
//! one server, for ever. On loopback Linux gives a tuple back after one second (`tcp_tw_reuse` = 2), so that the wall
//! is not seen where one tests, only where one deploys.
//!
//! # Growing without a stall
//!
//! What is left is time. An event loop does one thing at a time, so whatever takes long in one turn, everybody waits
//! for. A table that doubles at 500,000 connections copies all of them in that turn; so does a heap that sorts a
//! million deadlines, or a timer that walks over all connections to find the idle ones. Here no step depends on how
//! many connections there are: deadlines are queues through the slots themselves, unlinked in one step
//! (`src/reactor/timeouts.rs`), and a turn's cost is that of those who are ready in it. `turn_us_max` in the
//! statistics is the longest turn so far, in microseconds; it is the figure to watch.
