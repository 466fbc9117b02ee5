//! The other process: the holder that is paused.

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

/// That process under control.
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
            .context("a second process could not be started")?;
        let stdin = child.stdin.take().context("a pipe was asked for")?;
        let stdout = child.stdout.take().context("a pipe was asked for")?;
        Ok(Self { child, stdin, lines: BufReader::new(stdout).lines() })
    }

    pub fn says(&mut self) -> Result<String> {
        Ok(self.lines.next().context("the second process ended by itself")??)
    }

    pub fn pause(&self) -> Result<()> {
        self.signal(Signal::STOP)
    }

    /// Lets it go on, and write.
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
        Ok(kill_process(id.context("a process has an id")?, signal)?)
    }
}

/// What that process does: it sells one, with a line from its starter between the look and the sale.
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
    println!("{}", told(&sold));
    Ok(())
}

/// What became of the sale. A body that failed by itself returns its own error; one that went well
/// after its lease was lost returns the loss.
fn told(sold: &Result<i64>) -> String {
    match sold {
        Ok(left) => format!("and writes {left}"),
        Err(error) if matches!(error.downcast_ref(), Some(LockError::Lost { .. })) => {
            "and has written: it hears of the loss too late".to_owned()
        }
        Err(error) if error.downcast_ref().is_some_and(FencingError::is_stale) => {
            format!("and is refused: {error}")
        }
        Err(error) => format!("and fails: {error:#}"),
    }
}
