//! What the client is not told.

use std::io;
use std::sync::{Arc, Mutex};

use axum::response::IntoResponse;
use dlock_axum::LockRejection;
use dlock_runtime::LockError;
use dlock_runtime::backend::Memory;
use dlock_runtime::testing::{Call, Intercepted};
use tracing_subscriber::EnvFilter;

use crate::server::registry;

#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().expect("not poisoned").write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Makes a response of the error, and returns the lines that were logged.
fn logged(error: LockError) -> String {
    let log = Log::default();
    let writer = log.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_env_filter(EnvFilter::new("dlock=debug"))
        .with_writer(move || writer.clone())
        .with_ansi(false)
        .finish();
    tracing::subscriber::with_default(subscriber, || {
        let _ = LockRejection::from(error).into_response();
    });
    let bytes = log.0.lock().expect("not poisoned").clone();
    String::from_utf8(bytes).expect("text")
}

#[tokio::test]
async fn a_failure_of_the_store_is_a_warning_with_its_source() {
    let store = Intercepted::new(Memory::new());
    store.fail(Call::Acquire);
    let locks = registry(store);
    let lock = locks.lock("product:7").wait(std::time::Duration::ZERO);
    let line = logged(lock.acquire().await.expect_err("the store fails"));
    assert!(line.contains(" WARN dlock: request failed status=503"), "{line}");
    assert!(line.contains("product:7") && line.contains("source="), "{line}");
}

#[tokio::test]
async fn a_busy_lock_is_for_debugging_and_has_a_hint() {
    let locks = registry(Memory::new());
    let _held = locks.lock("product:7").acquire().await.expect("free");
    let lock = locks.lock("product:7").wait(std::time::Duration::ZERO);
    let line = logged(lock.acquire().await.expect_err("it is held"));
    assert!(line.contains("DEBUG dlock: request refused status=423"), "{line}");
    assert!(line.contains("product:7") && line.contains("hint="), "{line}");
}
