//! The socket between `dlock run` and its supervisor.
//!
//! On Linux its name is not in the file system, and ends with the process. Whoever connects has to be the supervisor: the
//! kernel says which process it is.

use std::ffi::OsStr;
use std::io;
use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};

/// A name that nobody can guess.
pub fn new_name() -> String {
    let random: u128 = rand::random();
    format!("dlock-{random:032x}")
}

#[cfg(target_os = "linux")]
fn address(name: &OsStr) -> io::Result<SocketAddr> {
    use std::os::linux::net::SocketAddrExt as _;
    SocketAddr::from_abstract_name(name.as_encoded_bytes())
}

#[cfg(not(target_os = "linux"))]
fn address(name: &OsStr) -> io::Result<SocketAddr> {
    SocketAddr::from_pathname(std::env::temp_dir().join(name))
}

pub fn listen(name: &str) -> io::Result<UnixListener> {
    UnixListener::bind_addr(&address(OsStr::new(name))?)
}

/// Connects to the `dlock run` that has started this process.
pub fn connect(name: &OsStr) -> io::Result<UnixStream> {
    let stream = UnixStream::connect_addr(&address(name)?)?;
    if is_parent(&stream)? { Ok(stream) } else { Err(io::Error::other("`dlock run` is gone")) }
}

#[cfg(target_os = "linux")]
fn is_parent(stream: &UnixStream) -> io::Result<bool> {
    use nix::sys::socket::{getsockopt, sockopt::PeerCredentials};
    let peer = getsockopt(stream, PeerCredentials)?;
    Ok(peer.pid() == nix::unistd::getppid().as_raw())
}

#[cfg(not(target_os = "linux"))]
fn is_parent(stream: &UnixStream) -> io::Result<bool> {
    let (user, _) = nix::unistd::getpeereid(stream)?;
    Ok(user == nix::unistd::geteuid())
}

/// Nobody else can connect from now on.
pub fn close(listener: UnixListener) {
    #[cfg(not(target_os = "linux"))]
    if let Ok(address) = listener.local_addr() {
        let _ = address.as_pathname().map(std::fs::remove_file);
    }
    drop(listener);
}
