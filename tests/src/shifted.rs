//! A proxy that gives a client the answer to a statement of its own.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

/// The answer to `DISCARD ALL`, and that the server is ready.
const DISCARDED: &[u8] = b"C\0\0\0\x10DISCARD ALL\0Z\0\0\0\x05I";

/// How an answer of PostgreSQL ends: ready for the next statement, without a transaction.
const READY: &[u8] = b"Z\0\0\0\x05I";

/// A TCP proxy on 127.0.0.1 for PostgreSQL that can replace one answer, as PgBouncer does when a notification makes it
/// assign a connection whose `DISCARD ALL` has no answer yet. The server executes the statement all the same.
#[derive(Debug)]
pub struct ShiftedProxy {
    port: u16,
    wanted: Wanted,
    service: JoinHandle<()>,
}

/// A part of the statement whose answer is replaced.
type Wanted = Arc<Mutex<Option<&'static str>>>;

impl ShiftedProxy {
    /// Starts a proxy for the server on this port of 127.0.0.1.
    ///
    /// # Panics
    /// If no port is free.
    pub async fn start(target: u16) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a free port");
        let port = listener.local_addr().expect("it is bound").port();
        let wanted = Wanted::default();
        let service = tokio::spawn(serve(listener, target, Arc::clone(&wanted)));
        Self { port, wanted, service }
    }

    /// The proxy's port, to use instead of the server's.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Replaces the answer to the next statement that contains this, from any client.
    ///
    /// # Panics
    /// If the proxy has panicked.
    pub fn replace_next(&self, part: &'static str) {
        *self.wanted.lock().expect("no panic") = Some(part);
    }

    /// Returns true if the last requested replacement is done.
    ///
    /// # Panics
    /// If the proxy has panicked.
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.wanted.lock().expect("no panic").is_none()
    }
}

impl Drop for ShiftedProxy {
    fn drop(&mut self) {
        self.service.abort();
    }
}

async fn serve(listener: TcpListener, target: u16, wanted: Wanted) {
    while let Ok((client, _)) = listener.accept().await {
        let Ok(server) = TcpStream::connect(("127.0.0.1", target)).await else { continue };
        let (from_client, to_client) = client.into_split();
        let (from_server, to_server) = server.into_split();
        let replace = Arc::new(AtomicBool::new(false));
        tokio::spawn(requests(from_client, to_server, Arc::clone(&wanted), Arc::clone(&replace)));
        tokio::spawn(answers(from_server, to_client, replace));
    }
}

async fn requests(
    mut client: OwnedReadHalf,
    mut server: OwnedWriteHalf,
    wanted: Wanted,
    replace: Arc<AtomicBool>,
) {
    let mut bytes = vec![0; 1 << 16];
    while let Ok(read @ 1..) = client.read(&mut bytes).await {
        let text = String::from_utf8_lossy(&bytes[..read]);
        let found = wanted.lock().expect("no panic").take_if(|part| text.contains(*part)).is_some();
        if found {
            replace.store(true, Ordering::SeqCst);
        }
        if server.write_all(&bytes[..read]).await.is_err() {
            break;
        }
    }
}

async fn answers(mut server: OwnedReadHalf, mut client: OwnedWriteHalf, replace: Arc<AtomicBool>) {
    let mut bytes = vec![0; 1 << 16];
    while let Ok(read @ 1..) = server.read(&mut bytes).await {
        let answer = &bytes[..read];
        let answer = match (replace.load(Ordering::SeqCst), answer.ends_with(READY)) {
            (false, _) => answer,
            (true, false) => continue,
            (true, true) => {
                replace.store(false, Ordering::SeqCst);
                DISCARDED
            }
        };
        if client.write_all(answer).await.is_err() {
            break;
        }
    }
}
