//! Curator's `InterProcessMutex` in a Java process.

use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use dlock_benches::contender::{Contender, Role, Slice};
use dlock_benches::program::Program;
use dlock_tests::servers::{CURATOR, curator_class_path, installed, program};
use tokio::process::Command;
use tokio::sync::Mutex;

pub const NAME: &str = "Curator";

/// Until Java has compiled what is called often.
const WARM_UP: Duration = Duration::from_secs(2);

/// This many threads, each with a mutex of its own; nothing if there is no Curator or no JDK.
pub async fn alone(port: u16, threads: u32) -> Option<Contender> {
    if !installed(CURATOR) {
        println!("Curator is left out: {CURATOR} or javac is not installed");
        return None;
    }
    let classes = tempfile::tempdir().expect("a temporary directory");
    compile(classes.path()).await;
    let mut command = Command::new(program("java").expect("it is installed"));
    let class_path = format!("{}:{}", classes.path().display(), curator_class_path());
    command.args(["-Xmx512m", "-cp", &class_path, "Mutexes"]);
    command.arg(format!("127.0.0.1:{port}")).arg(threads.to_string()).stderr(Stdio::null());
    let mut java = Program::start(command);
    assert_eq!(java.says().await, "ready");
    java.ask(&WARM_UP.as_millis().to_string()).await;
    let java = Arc::new(Mutex::new(java));
    let classes = Arc::new(classes);
    let run = move |length: Duration| {
        let (java, classes) = (Arc::clone(&java), Arc::clone(&classes));
        async move {
            let cycles = java.lock().await.ask(&length.as_millis().to_string()).await;
            drop(classes);
            let cycles = cycles.parse().expect("a number");
            Slice { cycles, all_cycles: cycles, entries: vec![] }
        }
    };
    let contender = Contender::new(Role::Peer, NAME, run).in_other_processes();
    Some(contender.remark("InterProcessMutex, a Java process of its own"))
}

async fn compile(folder: &Path) {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("java/Mutexes.java");
    let mut command = Command::new(program("javac").expect("it is installed"));
    command.arg("-cp").arg(curator_class_path()).arg("-d").arg(folder).arg(source);
    let output = command.output().await.expect("it runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}
