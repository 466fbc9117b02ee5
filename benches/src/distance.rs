//! A server that is further away: a proxy that holds every answer back for a while.
//!
//! It uses threads, because an asynchronous timer is only as fine as a millisecond. Requests pass at
//! once; each part of an answer leaves exactly so long after it arrived, so that any number of them can
//! be on their way, as on a real network.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::{Duration, Instant};

/// Starts a proxy for the server on this port of 127.0.0.1, and returns the proxy's port. It serves until
/// the process ends.
///
/// # Panics
/// If no port is free.
#[must_use]
pub fn distant(target: u16, round_trip: Duration) -> u16 {
    let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a free port");
    let port = listener.local_addr().expect("it is bound").port();
    thread::spawn(move || {
        for client in listener.incoming().flatten() {
            // A server that is gone closes the client's connection.
            if let Ok(server) = TcpStream::connect(("127.0.0.1", target)) {
                connect(client, server, round_trip);
            }
        }
    });
    port
}

fn connect(client: TcpStream, server: TcpStream, round_trip: Duration) {
    for stream in [&client, &server] {
        stream.set_nodelay(true).expect("a socket");
    }
    let (from, to) = (client.try_clone().expect("a socket"), server.try_clone().expect("a socket"));
    thread::spawn(move || forward(from, to));
    let (sender, parts) = channel();
    thread::spawn(move || {
        let mut server = server;
        let mut buffer = vec![0; 64 * 1_024];
        while let Ok(length @ 1..) = server.read(&mut buffer) {
            let due = Instant::now() + round_trip;
            if sender.send((due, buffer[..length].to_vec())).is_err() {
                return;
            }
        }
    });
    thread::spawn(move || deliver(&parts, client));
}

fn forward(mut from: TcpStream, mut to: TcpStream) {
    // Either side may end at any time.
    let _ = std::io::copy(&mut from, &mut to);
    let _ = to.shutdown(Shutdown::Both);
}

fn deliver(parts: &Receiver<(Instant, Vec<u8>)>, mut client: TcpStream) {
    for (due, part) in parts {
        thread::sleep(due.saturating_duration_since(Instant::now()));
        if client.write_all(&part).is_err() {
            break;
        }
    }
    let _ = client.shutdown(Shutdown::Both);
}
