//! What the `type` of a response's body refers to: for the authors of clients.
//!
//! A request that fails because of a lock is answered with a problem of [RFC 9457], such as:
//!
//! ```json
//! {
//!   "type": "https://docs.rs/dlock-axum/latest/dlock_axum/problems/index.html#busy",
//!   "title": "Locked",
//!   "status": 423,
//!   "detail": "Another request works on the same resource. Try again later."
//! }
//! ```
//!
//! A header `Retry-After` says that a retry may succeed.
//!
//! # Busy
//! Status 423. Another request held the lock for as long as this one was willing to wait. Nothing was done.
//!
//! # Unavailable
//! Status 503. The lock could not be acquired because the store of the locks did not answer. Nothing was done.
//!
//! # Shutting down
//! Status 503. The process that received the request is about to end; another process may accept it at once. Nothing was
//! done.
//!
//! # Stopped
//! Status 503. The process that carried the request out is about to end, and could not wait for it any longer. The request
//! may have been carried out in part. Repeat it only if that is safe.
//!
//! # Too long
//! Status 504. The request took longer than the service allows, and was stopped on its way.
//!
//! # Lost
//! Status 500. The lock ended before the request did. The request may have been carried out in full, in part or not at
//! all.
//!
//! # Invalid key
//! Status 400. The request names a resource that cannot be locked: a part of its name is empty or too long.
//!
//! Any other failure is status 500 with the type `about:blank`, which means no more than the status says.
//!
//! [RFC 9457]: https://www.rfc-editor.org/rfc/rfc9457
