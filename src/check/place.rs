//! Where a server that the checker starts is to listen, and how it is seen to do so.

use crate::net::{Endpoint, UnixName, free_port};
use socket2::Type;
use std::fs;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpStream, UdpSocket};
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// The kind of socket that a server has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// A TCP socket.
    Tcp,
    /// A UDP socket.
    Udp,
    /// A Unix stream socket.
    Unix,
    /// A Unix datagram socket.
    UnixDatagram,
}

impl Transport {
    /// What stands in a command for the place where the server is to listen: a port of 127.0.0.1, or a path.
    #[must_use]
    pub fn placeholder(self) -> &'static str {
        match self {
            Self::Tcp | Self::Udp => "{port}",
            Self::Unix | Self::UnixDatagram => "{path}",
        }
    }
}

/// A place where nothing listens yet.
#[derive(Debug)]
pub(super) struct Place {
    pub(super) endpoint: Endpoint,
    /// What replaces the placeholder.
    pub(super) text: String,
    /// Of a socket file, which goes with it.
    _directory: Option<Directory>,
}

impl Place {
    pub(super) fn free(transport: Transport) -> io::Result<Self> {
        let ip = |endpoint: fn(SocketAddr) -> Endpoint, port: u16| Self {
            endpoint: endpoint((Ipv4Addr::LOCALHOST, port).into()),
            text: port.to_string(),
            _directory: None,
        };
        let file = |endpoint: fn(UnixName) -> Endpoint| {
            let directory = Directory::new()?;
            let path = directory.0.join("echo");
            Ok(Self {
                text: path.display().to_string(),
                endpoint: endpoint(UnixName::Path(path)),
                _directory: Some(directory),
            })
        };
        match transport {
            Transport::Tcp => Ok(ip(Endpoint::Tcp, free_port(Type::STREAM)?)),
            Transport::Udp => Ok(ip(Endpoint::Udp, free_port(Type::DGRAM)?)),
            Transport::Unix => file(Endpoint::Unix),
            Transport::UnixDatagram => file(Endpoint::UnixDatagram),
        }
    }

    /// Whether a server listens. A UDP socket shows itself by its first answer alone.
    pub(super) fn is_served(&self) -> bool {
        let served = match &self.endpoint {
            Endpoint::Tcp(address) => {
                TcpStream::connect_timeout(address, Duration::from_secs(1)).map(drop)
            }
            Endpoint::Udp(address) => answers(*address),
            Endpoint::Unix(UnixName::Path(path)) => UnixStream::connect(path).map(drop),
            Endpoint::UnixDatagram(UnixName::Path(path)) => {
                UnixDatagram::unbound().and_then(|socket| socket.connect(path))
            }
            _ => Err(io::ErrorKind::Unsupported.into()),
        };
        served.is_ok()
    }
}

fn answers(address: SocketAddr) -> io::Result<()> {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
    socket.connect(address)?;
    socket.set_read_timeout(Some(Duration::from_millis(100)))?;
    socket.send(b"?")?;
    socket.recv(&mut [0; 1]).map(|_| ())
}

/// A directory that only this user may enter; dropping it removes it with all that is in it.
#[derive(Debug)]
struct Directory(PathBuf);

impl Directory {
    fn new() -> io::Result<Self> {
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("echo-reactor-check-{}-{number}", std::process::id());
        let path = std::env::temp_dir().join(name);
        let is_plain = |letter: char| letter.is_ascii_alphanumeric() || "/._-+".contains(letter);
        if !path.to_string_lossy().chars().all(is_plain) {
            return Err(io::Error::other(format!(
                "a shell would not take {} for one word; set TMPDIR to another directory",
                path.display()
            )));
        }
        fs::DirBuilder::new().mode(0o700).create(&path)?;
        Ok(Self(path))
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0); // what cannot be removed is in a directory for such files
    }
}
