//! This program itself.

use std::path::PathBuf;

/// Where it can be executed again, even if an upgrade has replaced it meanwhile.
pub fn path() -> PathBuf {
    let running = PathBuf::from("/proc/self/exe");
    if running.exists() {
        return running;
    }
    std::env::current_exe().unwrap_or_else(|_| PathBuf::from("dlock"))
}
