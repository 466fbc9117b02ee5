//! A network that delivers a request after its connection is gone.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

/// A TCP proxy on 127.0.0.1 that can keep one request back and close the client's connection, as an
/// overloaded proxy does: the client asks again over another connection, and the first copy arrives later.
#[derive(Debug)]
pub struct LateProxy {
    port: u16,
    wanted: Wanted,
    refuses: Arc<AtomicBool>,
    kept: mpsc::Receiver<KeptRequest>,
    service: JoinHandle<()>,
}

/// A part of the request that is to be kept.
type Wanted = Arc<Mutex<Option<&'static str>>>;

/// A request that has not been delivered yet. The server still has its connection open.
#[derive(Debug)]
pub struct KeptRequest {
    server: TcpStream,
    request: Vec<u8>,
}

impl LateProxy {
    /// Starts one in front of the server on this port of 127.0.0.1.
    ///
    /// # Panics
    /// When it gets no port.
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

    /// Its port, to be used in place of the server's.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Keeps the next request that has this in it, whoever sends it.
    ///
    /// # Panics
    /// When the proxy has panicked.
    pub fn keep_next(&self, part: &'static str) {
        *self.wanted.lock().expect("no panic") = Some(part);
    }

    /// Closes new connections at once, or serves them again.
    pub fn refuse_connections(&self, refuses: bool) {
        self.refuses.store(refuses, Ordering::Relaxed);
    }

    /// The request that was kept, as soon as there is one.
    ///
    /// # Panics
    /// When the proxy has panicked.
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
    /// Delivers it, and waits for the server's answer.
    ///
    /// # Panics
    /// When the server does not answer.
    pub async fn deliver(mut self) {
        self.server.write_all(&self.request).await.expect("the server reads");
        let length = self.server.read(&mut [0; 4096]).await.expect("the server answers");
        assert!(length > 0, "the server has closed the connection");
    }
}

/// What the proxy's task needs.
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

/// Passes everything until one side has ended, or a request is to be kept.
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

/// Is this the one to be kept? There is only one.
fn is_wanted(wanted: &Wanted, request: &[u8]) -> bool {
    let text = String::from_utf8_lossy(request);
    wanted.lock().expect("no panic").take_if(|part| text.contains(*part)).is_some()
}
