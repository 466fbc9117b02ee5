//! The second process: the holder that is paused.

use std::io::{BufRead, BufReader, Lines, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use anyhow::{Context, Result};
use dlock_runtime::{LockError, Registry, fencing::FencingError};
use rustix::process::{Pid, Signal, kill_process};
use serde::{Deserialize, Serialize};

use crate::shop::{Shop, sell};

#[derive(Serialize, Deserialize)]
struct Order {
    backend: String,
    file: String,
    fenced: bool,
}

/// A handle to the second process.
pub struct Holder {
    child: Child,
    stdin: ChildStdin,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Holder {
    pub fn start(backend: &str, shop: &Shop) -> Result<Self> {
        let (backend, file) = (backend.to_owned(), shop.file.clone());
        let order = serde_json::to_string(&Order { backend, file, fenced: shop.fenced })?;
        let mut child = Command::new(std::env::current_exe()?)
            .args(["--hold", &order])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("failed to start the second process")?;
        let stdin = child.stdin.take().context("stdout and stdin are piped")?;
        let stdout = child.stdout.take().context("stdout and stdin are piped")?;
        Ok(Self { child, stdin, lines: BufReader::new(stdout).lines() })
    }

    pub fn says(&mut self) -> Result<String> {
        Ok(self.lines.next().context("the second process exited unexpectedly")??)
    }

    pub fn pause(&self) -> Result<()> {
        self.signal(Signal::STOP)
    }

    /// Resumes the process, which then writes.
    pub fn resume(&mut self) -> Result<()> {
        self.signal(Signal::CONT)?;
        Ok(writeln!(self.stdin)?)
    }

    pub fn finish(mut self) -> Result<()> {
        self.child.wait()?;
        Ok(())
    }

    fn signal(&self, signal: Signal) -> Result<()> {
        let id = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw);
        Ok(kill_process(id.context("the process id is out of range")?, signal)?)
    }
}

/// Runs the second process: it sells one item, and waits for a line on standard input between the
/// read and the write.
pub async fn serve(order: &str) -> Result<()> {
    let Order { backend, file, fenced } = serde_json::from_str(order)?;
    let shop = Shop::open(&file, fenced).await?;
    let store = dlock_runtime::connect(&backend).await?;
    let registry = Registry::builder().backend("locks", store).build()?;
    let mut wait_for_a_line = async || {
        println!("{}", shop.stock().await?);
        let line = tokio::task::spawn_blocking(|| std::io::stdin().lines().next());
        line.await?;
        Ok(())
    };
    let sold = registry.scope(sell(&shop, &mut wait_for_a_line)).await;
    println!("{}", describe(&sold));
    Ok(())
}

/// Describes the outcome. A body that fails returns its own error; a body that succeeds after its
/// lease was lost returns the loss.
fn describe(sold: &Result<i64>) -> String {
    match sold {
        Ok(left) => format!("wrote {left}"),
        Err(error) if matches!(error.downcast_ref(), Some(LockError::Lost { .. })) => {
            "wrote, and learned of the lost lease too late".to_owned()
        }
        Err(error) if error.downcast_ref().is_some_and(FencingError::is_stale) => {
            format!("was rejected: {error}")
        }
        Err(error) => format!("failed: {error:#}"),
    }
}
