//! Collects what one thread logs.
//!
//! The subscriber is global to the process and installed before any test runs. A subscriber per
//! thread could miss lines: while `tracing` knows only one subscriber, it asks the thread that
//! reaches an event first whether the event is enabled, and caches that answer for all threads.

use std::cell::RefCell;
use std::io::Write;
use std::sync::Once;

thread_local! {
    /// The lines of this thread while it collects them.
    static COLLECTED: RefCell<Option<Vec<u8>>> = const { RefCell::new(None) };
}

/// Installs the subscriber. Call it before any test runs, in every binary that runs tests
/// concurrently.
///
/// # Panics
///
/// If the process has another subscriber.
pub fn install() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let lines = tracing_subscriber::fmt().with_ansi(false).with_writer(|| ThisThread);
        lines.try_init().expect("no other subscriber in this process");
    });
}

/// Runs `work` and returns the lines that its thread logged.
///
/// # Panics
///
/// If `work` collects on the same thread.
pub fn collect<T>(work: impl FnOnce() -> T) -> (T, String) {
    install();
    COLLECTED.set(Some(Vec::new()));
    let done = work();
    let lines = COLLECTED.take().expect("one collection at a time on each thread");
    (done, String::from_utf8(lines).expect("UTF-8"))
}

/// Writes to the collection of the current thread, if there is one.
struct ThisThread;

impl Write for ThisThread {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        COLLECTED.with_borrow_mut(|lines| {
            if let Some(lines) = lines {
                lines.extend(bytes);
            }
        });
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}
