//! A network that fails on demand: a proxy between a client and a server.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{oneshot, watch};
use tokio::task::{JoinHandle, JoinSet};

use crate::servers::free_port;

/// A TCP proxy on 127.0.0.1. Dropping it closes its connections.
#[derive(Debug)]
pub struct Proxy {
    port: u16,
    target: u16,
    flow: watch::Sender<Flow>,
    /// The added delay in each direction.
    delay: watch::Sender<Duration>,
    /// The number of accepted connections.
    accepted: Arc<AtomicU64>,
    /// The serving task; `None` while the network is cut.
    service: Option<Service>,
}

/// What the proxy forwards.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Flow {
    Everything,
    /// Only what clients send.
    Requests,
    Nothing,
}

#[derive(Debug, Clone, Copy)]
enum Direction {
    ToServer,
    ToClient,
}

/// How a connection forwards data.
#[derive(Debug, Clone)]
struct How {
    flow: watch::Receiver<Flow>,
    delay: watch::Receiver<Duration>,
}

#[derive(Debug)]
struct Service {
    task: JoinHandle<()>,
    end: oneshot::Sender<()>,
}

impl Proxy {
    /// Starts a proxy for the server on this port of 127.0.0.1.
    ///
    /// # Panics
    /// If no port is free.
    pub async fn start(target: u16) -> Self {
        let (flow, _) = watch::channel(Flow::Everything);
        let (delay, _) = watch::channel(Duration::ZERO);
        // Another process may bind the port after the check, so retry with the next one.
        for _ in 0..5 {
            let port = free_port().expect("a free port");
            if let Ok(listener) = TcpListener::bind(("127.0.0.1", port)).await {
                let accepted = Arc::default();
                let service = Some(Service::start(listener, target, &flow, &delay, &accepted));
                return Self { port, target, flow, delay, accepted, service };
            }
        }
        panic!("the proxy got no port");
    }

    /// The proxy's port, to use instead of the server's.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The number of connections accepted since the start, including those that the server refused.
    #[must_use]
    pub fn accepted(&self) -> u64 {
        self.accepted.load(Ordering::Relaxed)
    }

    /// Closes every connection on both sides, and refuses new ones until [`heal`](Self::heal). Data
    /// buffered since a [`stall`](Self::stall) is lost. When this returns, no connection is open.
    ///
    /// # Panics
    /// If the proxy has panicked.
    pub async fn cut(&mut self) {
        if let Some(Service { task, end }) = self.service.take() {
            // If it has already ended, there is nothing to notify.
            let _ = end.send(());
            task.await.expect("no panic");
        }
    }

    /// Accepts connections again after [`cut`](Self::cut), and forwards everything.
    ///
    /// # Panics
    /// If its port is no longer free.
    pub async fn heal(&mut self) {
        self.resume();
        if self.service.is_none() {
            let listener = TcpListener::bind(("127.0.0.1", self.port)).await;
            let listener = listener.expect("its port is still free");
            let service =
                Service::start(listener, self.target, &self.flow, &self.delay, &self.accepted);
            self.service = Some(service);
        }
    }

    /// Forwards nothing in either direction, not even the end of a connection, like a network that
    /// drops every packet. Connections stay open and new ones can be made, but they are silent.
    pub fn stall(&self) {
        self.flow.send_replace(Flow::Nothing);
    }

    /// Forwards requests but holds back the answers: the server executes what it is asked to, and
    /// no client learns of it.
    pub fn stall_answers(&self) {
        self.flow.send_replace(Flow::Requests);
    }

    /// Delays everything by this much in each direction, like a distant server.
    pub fn delay(&self, delay: Duration) {
        self.delay.send_replace(delay);
    }

    /// Forwards everything again, buffered data first.
    pub fn resume(&self) {
        self.flow.send_replace(Flow::Everything);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        if let Some(service) = &self.service {
            service.task.abort();
        }
    }
}

impl Service {
    fn start(
        listener: TcpListener,
        target: u16,
        flow: &watch::Sender<Flow>,
        delay: &watch::Sender<Duration>,
        accepted: &Arc<AtomicU64>,
    ) -> Self {
        let (end, ended) = oneshot::channel();
        let how = How { flow: flow.subscribe(), delay: delay.subscribe() };
        let serving = serve(listener, target, how, Arc::clone(accepted), ended);
        Self { task: tokio::spawn(serving), end }
    }
}

/// Serves until it is asked to end, then closes everything before it returns.
async fn serve(
    listener: TcpListener,
    target: u16,
    how: How,
    accepted: Arc<AtomicU64>,
    mut ended: oneshot::Receiver<()>,
) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            _ = &mut ended => break,
            Some(_) = connections.join_next() => {}
            Ok((client, _)) = listener.accept() => {
                accepted.fetch_add(1, Ordering::Relaxed);
                let how = how.clone();
                // A connection that breaks has notified both its sides.
                connections.spawn(async move { connect(client, target, how).await.ok() });
            }
        }
    }
    drop(listener);
    connections.shutdown().await;
}

/// Forwards data between both sides of a connection until both have ended, or one breaks.
async fn connect(client: TcpStream, target: u16, mut how: How) -> io::Result<()> {
    passes(&mut how.flow, Direction::ToServer).await;
    let server = TcpStream::connect(("127.0.0.1", target)).await?;
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = server.into_split();
    tokio::try_join!(
        pump(from_client, to_server, how.clone(), Direction::ToServer),
        pump(from_server, to_client, how, Direction::ToClient),
    )?;
    Ok(())
}

async fn pump(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    mut how: How,
    direction: Direction,
) -> io::Result<()> {
    let mut buffer = vec![0; 16 * 1024];
    loop {
        let read = from.read(&mut buffer).await;
        // Data, or the end of the connection, stays here while nothing is forwarded.
        passes(&mut how.flow, direction).await;
        let delay = *how.delay.borrow();
        if !delay.is_zero() {
            tokio::time::sleep(delay).await;
        }
        match read? {
            0 => return to.shutdown().await,
            length => to.write_all(&buffer[..length]).await?,
        }
    }
}

/// Waits until this direction is open.
async fn passes(flow: &mut watch::Receiver<Flow>, direction: Direction) {
    let open = |flow: &Flow| match direction {
        Direction::ToServer => *flow != Flow::Nothing,
        Direction::ToClient => *flow == Flow::Everything,
    };
    // Without a sender, the proxy is being dropped together with this task.
    if flow.wait_for(open).await.is_err() {
        std::future::pending::<()>().await;
    }
}
