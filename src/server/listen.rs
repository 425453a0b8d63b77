//! Listening sockets: bound here, or handed over by systemd, TCP and unix.
//!
//! A socket that systemd holds stays open while Tidings restarts, so that connections wait in its queue instead of being
//! refused; browsers stop an EventSource for ever on a proxy's 502. So of each kind what systemd hands over wins over
//! what settings say.
//!
//! **Invariant**: a unix socket that was bound here goes when its [`Listener`] goes; systemd's stays.

use std::fs::{self, Permissions};
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::{Path, PathBuf};

use listenfd::ListenFd;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::{TcpListener, UnixListener};

/// Connections that wait in the kernel for us to accept them; the kernel cuts it at `net.core.somaxconn`.
const BACKLOG: i32 = 4096;

/// Where to listen unless systemd says otherwise.
#[derive(Clone, Debug)]
pub struct Addresses {
    /// `None` is no TCP.
    pub tcp: Option<SocketAddr>,
    /// For a proxy on this machine; `None` is none.
    pub unix: Option<PathBuf>,
    /// Permission bits of that socket.
    pub unix_mode: u32,
    /// For the command line, whatever else is busy.
    pub operator: PathBuf,
    /// For those who watch the server; `None` is none.
    pub watcher: Option<SocketAddr>,
}

/// Permission bits of the operator's socket.
const OPERATOR_MODE: u32 = 0o600;

/// Whom a listener is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    Public,
    /// The command line on this machine. Everything is there, and nobody else takes its places.
    Operator,
    /// Probes and scrapers; nothing else is there.
    Watcher,
}

/// A socket that listens.
#[derive(Debug)]
pub struct Listener {
    pub(super) role: Role,
    pub(super) socket: Socketed,
}

/// The two kinds of sockets.
#[derive(Debug)]
pub(super) enum Socketed {
    Tcp(TcpListener),
    Unix {
        listener: UnixListener,
        /// `None` where the socket has no name in the file system.
        path: Option<PathBuf>,
        /// The file to remove at the end, where it is ours.
        _file: Option<SocketFile>,
    },
}

/// The file of a unix socket, removed with this value.
#[derive(Debug)]
pub struct SocketFile(PathBuf);

impl Drop for SocketFile {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

/// Why a socket can't be listened on.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    #[error(
        "{address} is in use: stop what listens there, or choose another address with --listen or [ops] listen (port 0 takes a free one)"
    )]
    TcpInUse { address: SocketAddr },
    #[error("cannot listen on {address}: {source}")]
    Tcp { address: SocketAddr, source: io::Error },
    #[error("{} is in use by another server: choose another path with [http] socket", .0.display())]
    UnixInUse(PathBuf),
    #[error("{} is not a socket: move it away, or choose another path with [http] socket", .0.display())]
    NotASocket(PathBuf),
    #[error("cannot listen on {}: {source}", path.display())]
    Unix { path: PathBuf, source: io::Error },
    #[error("cannot use socket {index} of those that systemd handed over (LISTEN_FDS): {source}")]
    Inherited { index: usize, source: io::Error },
}

/// What systemd handed over.
#[derive(Debug, Default)]
pub struct Inherited {
    tcp: Vec<std::net::TcpListener>,
    unix: Vec<std::os::unix::net::UnixListener>,
}

impl Inherited {
    /// Takes the sockets that `LISTEN_FDS` tells of. Changes the environment, so call it once, before any thread.
    ///
    /// # Errors
    /// [`ListenError::Inherited`], where one is neither a TCP nor a unix stream socket.
    pub fn take() -> Result<Self, ListenError> {
        let mut handed = ListenFd::from_env();
        let mut this = Self::default();
        for index in 0..handed.len() {
            let refused = |source| ListenError::Inherited { index, source };
            if let Ok(Some(unix)) = handed.take_unix_listener(index) {
                unix.set_nonblocking(true).map_err(refused)?;
                this.unix.push(unix);
            } else if let Some(tcp) = handed.take_tcp_listener(index).map_err(refused)? {
                tcp.set_nonblocking(true).map_err(refused)?;
                this.tcp.push(tcp);
            }
        }
        Ok(this)
    }
}

/// Listens: on what systemd handed over, and on the configured address of each kind it handed none of. Call it while
/// holding the state directory, and inside the runtime.
///
/// # Errors
/// [`ListenError`], whose text says what to do.
pub fn listen(addresses: &Addresses, inherited: Inherited) -> Result<Vec<Listener>, ListenError> {
    let (wants_tcp, wants_unix) = (inherited.tcp.is_empty(), inherited.unix.is_empty());
    let mut listeners = Vec::new();
    for (index, tcp) in inherited.tcp.into_iter().enumerate() {
        let tcp = TcpListener::from_std(tcp).map_err(|source| ListenError::Inherited { index, source })?;
        listeners.push(Listener::tcp(Role::Public, tcp));
    }
    for (index, unix) in inherited.unix.into_iter().enumerate() {
        let path = unix.local_addr().ok().and_then(|address| address.as_pathname().map(Path::to_owned));
        let listener = UnixListener::from_std(unix).map_err(|source| ListenError::Inherited { index, source })?;
        listeners.push(Listener { role: Role::Public, socket: Socketed::Unix { listener, path, _file: None } });
    }
    if let Some(address) = addresses.tcp.filter(|_| wants_tcp) {
        listeners.push(Listener::tcp(Role::Public, bind_tcp(address)?));
    }
    if let Some(path) = addresses.unix.as_ref().filter(|_| wants_unix) {
        listeners.push(bind_unix(Role::Public, path, addresses.unix_mode)?);
    }
    listeners.push(bind_unix(Role::Operator, &addresses.operator, OPERATOR_MODE)?);
    if let Some(address) = addresses.watcher {
        listeners.push(Listener::tcp(Role::Watcher, bind_tcp(address)?));
    }
    Ok(listeners)
}

impl Listener {
    const fn tcp(role: Role, listener: TcpListener) -> Self {
        Self { role, socket: Socketed::Tcp(listener) }
    }

    /// Where it listens, where that is a TCP address.
    pub fn address(&self) -> Option<SocketAddr> {
        match &self.socket {
            Socketed::Tcp(tcp) => tcp.local_addr().ok(),
            Socketed::Unix { .. } => None,
        }
    }

    /// Where it listens, where that is a file.
    pub fn path(&self) -> Option<&Path> {
        match &self.socket {
            Socketed::Tcp(_) => None,
            Socketed::Unix { path, .. } => path.as_deref(),
        }
    }
}

/// The TCP address of the first listener of a role that has one.
pub fn tcp_address(listeners: &[Listener], role: Role) -> Option<SocketAddr> {
    listeners.iter().filter(|listener| listener.role == role).find_map(Listener::address)
}

/// The path of the first listener of a role that has one.
pub fn unix_path(listeners: &[Listener], role: Role) -> Option<&Path> {
    listeners.iter().filter(|listener| listener.role == role).find_map(Listener::path)
}

fn bind_tcp(address: SocketAddr) -> Result<TcpListener, ListenError> {
    try_bind_tcp(address).map_err(|source| match source.kind() {
        io::ErrorKind::AddrInUse => ListenError::TcpInUse { address },
        _ => ListenError::Tcp { address, source },
    })
}

fn try_bind_tcp(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    // A restart must not wait for the last run's connections to leave TIME_WAIT.
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    TcpListener::from_std(socket.into())
}

fn bind_unix(role: Role, path: &Path, mode: u32) -> Result<Listener, ListenError> {
    let failed = |source| ListenError::Unix { path: path.to_owned(), source };
    remove_stale(path)?;
    let bind = || {
        let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
        socket.set_nonblocking(true)?;
        socket.bind(&socket2::SockAddr::unix(path)?)?;
        let file = SocketFile(path.to_owned());
        // Before `listen`, so that nobody connects by the wider mode of an open umask.
        fs::set_permissions(path, Permissions::from_mode(mode))?;
        socket.listen(BACKLOG)?;
        Ok((UnixListener::from_std(socket.into())?, file))
    };
    let (listener, file) = bind().map_err(failed)?;
    let socket = Socketed::Unix { listener, path: Some(path.to_owned()), _file: Some(file) };
    Ok(Listener { role, socket })
}

/// Removes the socket that a killed server left behind; a server that lives keeps its own.
fn remove_stale(path: &Path) -> Result<(), ListenError> {
    let failed = |source| ListenError::Unix { path: path.to_owned(), source };
    match fs::symlink_metadata(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(source) => Err(failed(source)),
        Ok(found) if !found.file_type().is_socket() => Err(ListenError::NotASocket(path.to_owned())),
        Ok(_) => match std::os::unix::net::UnixStream::connect(path) {
            Ok(_) => Err(ListenError::UnixInUse(path.to_owned())),
            Err(_) => fs::remove_file(path).map_err(failed),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addresses(unix: &Path) -> Addresses {
        Addresses {
            tcp: Some(SocketAddr::from(([127, 0, 0, 1], 0))),
            unix: Some(unix.to_owned()),
            unix_mode: 0o660,
            operator: unix.with_extension("ops"),
            watcher: None,
        }
    }

    #[tokio::test]
    async fn both_kinds_are_bound_and_the_socket_goes_with_its_listener() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("t.sock");
        let listeners = listen(&addresses(&path), Inherited::default()).expect("free");
        assert_ne!(tcp_address(&listeners, Role::Public).expect("one is TCP").port(), 0);
        assert_eq!(unix_path(&listeners, Role::Public), Some(path.as_path()));
        let operator = unix_path(&listeners, Role::Operator).expect("there always is one");
        let mode = |path: &Path| fs::metadata(path).expect("bound").permissions().mode() & 0o777;
        assert_eq!((mode(&path), mode(operator)), (0o660, 0o600));
        assert!(matches!(listen(&addresses(&path), Inherited::default()), Err(ListenError::UnixInUse(_))));
        drop(listeners);
        assert!(!path.exists());
    }

    #[tokio::test]
    async fn a_socket_of_a_killed_server_is_replaced_and_a_file_is_not() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("t.sock");
        drop(std::os::unix::net::UnixListener::bind(&path).expect("free"));
        assert!(path.exists(), "std leaves the file behind");
        drop(listen(&addresses(&path), Inherited::default()).expect("nobody listens there any more"));
        fs::write(&path, "letters").expect("a file");
        assert!(matches!(listen(&addresses(&path), Inherited::default()), Err(ListenError::NotASocket(_))));
    }

    #[tokio::test]
    async fn what_systemd_hands_over_wins_kind_by_kind_and_stays() {
        let folder = tempfile::tempdir().expect("a folder");
        let (path, other) = (folder.path().join("systemd.sock"), folder.path().join("t.sock"));
        let handed = std::os::unix::net::UnixListener::bind(&path).expect("free");
        handed.set_nonblocking(true).expect("it is a socket");
        let listeners =
            listen(&addresses(&other), Inherited { unix: vec![handed], ..Inherited::default() }).expect("free");
        assert_eq!(listeners.len(), 3);
        assert_eq!(unix_path(&listeners, Role::Public), Some(path.as_path()));
        drop(listeners);
        assert!(path.exists() && !other.exists());
    }

    #[tokio::test]
    async fn a_taken_port_says_what_to_do() {
        let folder = tempfile::tempdir().expect("a folder");
        let first = listen(&addresses(&folder.path().join("a")), Inherited::default()).expect("free");
        let tcp = tcp_address(&first, Role::Public);
        let again = Addresses { tcp, ..addresses(&folder.path().join("b")) };
        let refused = listen(&again, Inherited::default()).expect_err("taken").to_string();
        assert!(refused.contains("is in use: stop what listens there"), "{refused}");
    }
}
