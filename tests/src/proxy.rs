//! A TCP proxy between a client and a server, for networks that fail.

use std::net::Ipv4Addr;
use std::sync::Arc;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::{AbortHandle, JoinSet};

/// What the network does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Network {
    Passes,
    /// Connections are broken, and none is made.
    Cut,
    /// Connections stand and are made, but nothing passes: half-open.
    Stalls,
}

/// A proxy to one port of this machine; it ends when dropped.
#[derive(Debug)]
pub struct Proxy {
    port: u16,
    network: Arc<watch::Sender<Network>>,
    task: AbortHandle,
}

impl Proxy {
    /// Begins to pass everything to this port.
    ///
    /// # Panics
    /// When it cannot listen.
    pub async fn start(target: u16) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a free port");
        let port = listener.local_addr().expect("it listens").port();
        let network = Arc::new(watch::Sender::new(Network::Passes));
        let task = tokio::spawn(serve(listener, target, Arc::clone(&network))).abort_handle();
        Self { port, network, task }
    }

    /// The port to connect to instead of the server's.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Breaks all connections, and all that are made from now on.
    pub fn cut(&self) {
        self.network.send_replace(Network::Cut);
    }

    /// Passes nothing any more on connections that stand, or are made from now on.
    pub fn stall(&self) {
        self.network.send_replace(Network::Stalls);
    }

    /// Passes everything again, what was kept back first.
    pub fn heal(&self) {
        self.network.send_replace(Network::Passes);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve(listener: TcpListener, target: u16, network: Arc<watch::Sender<Network>>) {
    let mut connections = JoinSet::new();
    while let Ok((client, _)) = listener.accept().await {
        while connections.try_join_next().is_some() {}
        connections.spawn(connect(client, target, network.subscribe()));
    }
}

/// Passes bytes both ways until one side ends or the network is cut.
async fn connect(client: TcpStream, target: u16, mut network: watch::Receiver<Network>) {
    if *network.borrow() == Network::Cut {
        return;
    }
    let Ok(server) = TcpStream::connect((Ipv4Addr::LOCALHOST, target)).await else { return };
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = server.into_split();
    let there = pass(from_client, to_server, network.clone());
    let back = pass(from_server, to_client, network.clone());
    tokio::select! {
        () = there => {}
        () = back => {}
        _ = network.wait_for(|network| *network == Network::Cut) => {}
    }
}

async fn pass(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    mut network: watch::Receiver<Network>,
) {
    let mut bytes = vec![0; 16 * 1024];
    while let Ok(count @ 1..) = from.read(&mut bytes).await {
        if network.wait_for(|network| *network == Network::Passes).await.is_err() {
            return;
        }
        if to.write_all(&bytes[..count]).await.is_err() {
            return;
        }
    }
}
