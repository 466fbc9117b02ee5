//! Other processes that take part: they read orders and print answers, one line each.

use std::process::Stdio;

use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};

/// A running program. Dropping it kills it.
#[derive(Debug)]
pub struct Program {
    process: Child,
    input: ChildStdin,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Program {
    /// Starts it.
    ///
    /// # Panics
    /// If it does not start.
    #[must_use]
    pub fn start(mut command: Command) -> Self {
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true);
        let mut process = command.spawn().expect("the program starts");
        let input = process.stdin.take().expect("a pipe");
        let lines = BufReader::new(process.stdout.take().expect("a pipe")).lines();
        Self { process, input, lines }
    }

    /// Sends a line.
    ///
    /// # Panics
    /// If the program has ended.
    pub async fn tell(&mut self, line: &str) {
        self.input.write_all(format!("{line}\n").as_bytes()).await.expect("it reads");
    }

    /// Waits for its next line.
    ///
    /// # Panics
    /// If the program ends first.
    pub async fn says(&mut self) -> String {
        self.lines.next_line().await.expect("text").expect("it has not ended")
    }

    /// Sends a line and waits for the answer.
    pub async fn ask(&mut self, line: &str) -> String {
        self.tell(line).await;
        self.says().await
    }

    /// Kills it and waits until it is gone.
    ///
    /// # Panics
    /// If it cannot be killed.
    pub async fn end(mut self) {
        self.process.kill().await.expect("our own child process");
    }
}
