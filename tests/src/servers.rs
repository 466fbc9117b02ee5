//! Real servers of the tests' own: each on a free port, with a directory of its own, ended by its id.

use std::io;
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::Child;

use rustix::process::{Pid, Signal, kill_process};

mod mariadb;
mod postgres;
mod process;
mod redis;

pub use mariadb::MariaDbServer;
pub use postgres::PostgresServer;
pub use process::user_ids;
pub use redis::RedisServer;

/// Is this program on this machine?
#[must_use]
pub fn installed(program: &str) -> bool {
    find(program).is_some()
}

/// The first of these programs that is not on this machine, or the first of all.
///
/// # Panics
/// When there are none.
#[must_use]
pub fn first_missing(programs: &[&'static str]) -> &'static str {
    programs.iter().find(|program| !installed(program)).or(programs.first()).expect("a program")
}

/// Where a program is: on the `PATH`, or where Debian keeps servers out of it.
#[must_use]
pub fn find(program: &str) -> Option<PathBuf> {
    let paths = std::env::var_os("PATH").unwrap_or_default();
    let mut folders: Vec<_> = std::env::split_paths(&paths).collect();
    folders.push("/usr/sbin".into());
    folders.extend(postgres_folders());
    folders.into_iter().map(|folder| folder.join(program)).find(|path| path.is_file())
}

/// Debian's folders of PostgreSQL's programs, the newest version first.
fn postgres_folders() -> Vec<PathBuf> {
    let Ok(versions) = std::fs::read_dir("/usr/lib/postgresql") else { return vec![] };
    let mut versions: Vec<u32> =
        versions.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect();
    versions.sort_unstable();
    let folder = |version| format!("/usr/lib/postgresql/{version}/bin").into();
    versions.into_iter().rev().map(folder).collect()
}

/// A port that nobody uses at this moment.
///
/// # Errors
/// When none can be had.
pub fn free_port() -> io::Result<u16> {
    Ok(TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port())
}

/// Sends a signal to a child process.
///
/// # Panics
/// When the child is gone.
pub fn signal_child(child: &Child, signal: Signal) {
    kill_process(id_of(child), signal).expect("a child of ours");
}

fn id_of(child: &Child) -> Pid {
    i32::try_from(child.id()).ok().and_then(Pid::from_raw).expect("a process id")
}

/// What can be done to every server.
macro_rules! controls {
    ($server:ident) => {
        impl $server {
            /// The directory it works in.
            #[must_use]
            pub fn folder(&self) -> &std::path::Path {
                self.0.folder()
            }

            /// Its port.
            #[must_use]
            pub fn port(&self) -> u16 {
                self.0.port()
            }

            /// Ends it at once, as a power cut would.
            ///
            /// # Panics
            /// When it does not run.
            pub fn kill(&mut self) {
                self.0.kill();
            }

            /// Starts it again on the same port and directory, with what it kept.
            ///
            /// # Panics
            /// When it does not start.
            pub fn restart(&mut self) {
                self.0.restart();
            }

            /// Stops its processes where they are.
            ///
            /// # Panics
            /// When it does not run.
            pub fn pause(&mut self) {
                self.0.pause();
            }

            /// Lets them go on.
            ///
            /// # Panics
            /// When it does not run.
            pub fn resume(&mut self) {
                self.0.resume();
            }
        }
    };
}

controls!(MariaDbServer);
controls!(PostgresServer);
controls!(RedisServer);
