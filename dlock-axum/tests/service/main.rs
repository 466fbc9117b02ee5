//! A real server on a free port, and a client over plain TCP.

mod disconnects;
mod http;
mod logs;
mod purchases;
mod server;
mod shutdown;
mod statuses;
