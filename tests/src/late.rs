//! A network that delivers a request after its connection has closed.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

/// A TCP proxy on 127.0.0.1 that can hold back one request and close the client's connection, as an
/// overloaded proxy does. The client retries over another connection, and the first copy arrives
/// later.
#[derive(Debug)]
pub struct LateProxy {
    port: u16,
    wanted: Wanted,
    refuses: Arc<AtomicBool>,
    kept: mpsc::Receiver<KeptRequest>,
    service: JoinHandle<()>,
}

/// A part of the request to hold back.
type Wanted = Arc<Mutex<Option<&'static str>>>;

/// A request that has not been delivered yet. Its connection to the server is still open.
#[derive(Debug)]
pub struct KeptRequest {
    server: TcpStream,
    request: Vec<u8>,
}

impl LateProxy {
    /// Starts a proxy for the server on this port of 127.0.0.1.
    ///
    /// # Panics
    /// If no port is free.
    pub async fn start(target: u16) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a free port");
        let port = listener.local_addr().expect("it is bound").port();
        let wanted = Wanted::default();
        let refuses = Arc::new(AtomicBool::new(false));
        let (keep, kept) = mpsc::channel(1);
        let gate =
            Gate { target, wanted: Arc::clone(&wanted), refuses: Arc::clone(&refuses), keep };
        let service = tokio::spawn(gate.serve(listener));
        Self { port, wanted, refuses, kept, service }
    }

    /// The proxy's port, to use instead of the server's.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Holds back the next request that contains this, from any client.
    ///
    /// # Panics
    /// If the proxy has panicked.
    pub fn keep_next(&self, part: &'static str) {
        *self.wanted.lock().expect("no panic") = Some(part);
    }

    /// Sets whether new connections are closed at once or served.
    pub fn refuse_connections(&self, refuses: bool) {
        self.refuses.store(refuses, Ordering::Relaxed);
    }

    /// Waits for the request that is held back.
    ///
    /// # Panics
    /// If the proxy has panicked.
    pub async fn kept(&mut self) -> KeptRequest {
        self.kept.recv().await.expect("the proxy runs")
    }
}

impl Drop for LateProxy {
    fn drop(&mut self) {
        self.service.abort();
    }
}

impl KeptRequest {
    /// Delivers the request, and waits for the server's answer.
    ///
    /// # Panics
    /// If the server does not answer.
    pub async fn deliver(mut self) {
        self.server.write_all(&self.request).await.expect("the server reads");
        let length = self.server.read(&mut [0; 4096]).await.expect("the server answers");
        assert!(length > 0, "the server has closed the connection");
    }
}

/// The state of the proxy's task.
struct Gate {
    target: u16,
    wanted: Wanted,
    refuses: Arc<AtomicBool>,
    keep: mpsc::Sender<KeptRequest>,
}

impl Gate {
    async fn serve(self, listener: TcpListener) {
        while let Ok((client, _)) = listener.accept().await {
            if self.refuses.load(Ordering::Relaxed) {
                continue;
            }
            let Ok(server) = TcpStream::connect(("127.0.0.1", self.target)).await else { continue };
            let (wanted, keep) = (Arc::clone(&self.wanted), self.keep.clone());
            tokio::spawn(async move {
                if let Some(kept) = pass(client, server, &wanted).await {
                    // The test may be over.
                    let _ = keep.send(kept).await;
                }
            });
        }
    }
}

/// Forwards everything until one side has ended, or a request is held back.
async fn pass(
    mut client: TcpStream,
    mut server: TcpStream,
    wanted: &Wanted,
) -> Option<KeptRequest> {
    let (mut asked, mut answered) = (vec![0; 16 * 1024], vec![0; 16 * 1024]);
    loop {
        tokio::select! {
            read = client.read(&mut asked) => {
                let length = read.ok().filter(|length| *length > 0)?;
                let request = &asked[..length];
                if is_wanted(wanted, request) {
                    return Some(KeptRequest { server, request: request.to_vec() });
                }
                server.write_all(&asked[..length]).await.ok()?;
            }
            read = server.read(&mut answered) => {
                let length = read.ok().filter(|length| *length > 0)?;
                client.write_all(&answered[..length]).await.ok()?;
            }
        }
    }
}

/// Whether to hold back this request. Only one is held back.
fn is_wanted(wanted: &Wanted, request: &[u8]) -> bool {
    let text = String::from_utf8_lossy(request);
    wanted.lock().expect("no panic").take_if(|part| text.contains(*part)).is_some()
}
