//! The servers. Each is a process, or a thread with its own runtime for a backend that lives inside
//! one process.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, Command as Program, Stdio};

use anyhow::{Context, Result};
use dlock_runtime::backend::Memory;
use rustix::process::{Pid, Signal, kill_process};
use tokio::sync::{mpsc, oneshot};

use crate::event::{Command, Told};
use crate::server::{Duty, registry, serve};

/// The argument with which the example starts itself as a server.
pub const SERVE: &str = "--serve-as-a-server-of-the-example";

/// A handle to a server.
pub enum Server {
    Process { child: Child, stdin: ChildStdin },
    Thread { commands: mpsc::UnboundedSender<Command>, killer: Option<oneshot::Sender<()>> },
}

/// Receives the events of all servers, with the server's number.
///
/// `None` means that the server has ended.
pub type Inbox = mpsc::UnboundedSender<(usize, Option<Told>)>;

impl Server {
    /// Starts a server. With `memory`, the server is a thread on that store.
    pub fn start(duty: Duty, memory: Option<&Memory>, inbox: Inbox) -> Result<Self> {
        match memory {
            Some(memory) => Ok(Self::thread(duty, memory.clone(), inbox)),
            None => Self::process(&duty, inbox),
        }
    }

    fn process(duty: &Duty, inbox: Inbox) -> Result<Self> {
        let mut child = Program::new(std::env::current_exe()?)
            .arg(SERVE)
            .arg(serde_json::to_string(duty)?)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("failed to start a server process")?;
        let stdin = child.stdin.take().context("stdin and stdout are piped")?;
        let stdout = child.stdout.take().context("stdin and stdout are piped")?;
        let number = duty.server;
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                if let Ok(told) = serde_json::from_str(&line) {
                    let _ = inbox.send((number, Some(told)));
                }
            }
            let _ = inbox.send((number, None));
        });
        Ok(Self::Process { child, stdin })
    }

    fn thread(duty: Duty, memory: Memory, inbox: Inbox) -> Self {
        let (commands, received) = mpsc::unbounded_channel();
        let (killer, end) = oneshot::channel();
        let (out, mut told) = mpsc::unbounded_channel();
        let number = duty.server;
        std::thread::spawn(move || {
            while let Some(told) = told.blocking_recv() {
                let _ = inbox.send((number, Some(told)));
            }
            let _ = inbox.send((number, None));
        });
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            let (Ok(runtime), Ok(registry)) = (runtime, registry(memory)) else { return };
            // On a kill, the runtime ends with everything in flight, and no lock is released.
            runtime.block_on(async {
                tokio::select! {
                    _ = serve(duty, registry, received, out) => {}
                    _ = end => {}
                }
            });
            runtime.shutdown_background();
        });
        Self::Thread { commands, killer: Some(killer) }
    }

    /// Sends a command.
    pub fn tell(&mut self, command: Command) -> Result<()> {
        match self {
            Self::Process { stdin, .. } => {
                writeln!(stdin, "{}", serde_json::to_string(&command)?)?;
                stdin.flush()?;
            }
            Self::Thread { commands, .. } => commands.send(command).context("a server is gone")?,
        }
        Ok(())
    }

    /// Ends the server at once, as SIGKILL does.
    pub fn kill(&mut self) {
        match self {
            Self::Process { child, .. } => {
                let _ = child.kill();
                let _ = child.wait();
            }
            Self::Thread { killer, .. } => drop(killer.take()),
        }
    }

    /// Pauses the server for this long.
    pub fn pause(&mut self, length: std::time::Duration) -> Result<()> {
        match self {
            Self::Process { child, .. } => {
                let id = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
                let id = id.context("the process id is out of range")?;
                kill_process(id, Signal::STOP)?;
                tokio::spawn(async move {
                    tokio::time::sleep(length).await;
                    kill_process(id, Signal::CONT)
                });
            }
            Self::Thread { .. } => {
                let millis = u64::try_from(length.as_millis())?;
                self.tell(Command::Freeze(millis))?;
            }
        }
        Ok(())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Runs a server process: commands from standard input, events to standard output.
pub async fn serve_as_process(duty: &str) -> Result<()> {
    let duty: Duty = serde_json::from_str(duty)?;
    let (commands, received) = mpsc::unbounded_channel();
    let (out, mut told) = mpsc::unbounded_channel();
    std::thread::spawn(move || {
        for line in std::io::stdin().lock().lines().map_while(Result::ok) {
            if let Ok(command) = serde_json::from_str(&line)
                && commands.send(command).is_err()
            {
                return;
            }
        }
        // The example has exited, so its server exits too.
        std::process::exit(3);
    });
    let writer = std::thread::spawn(move || {
        let mut stdout = std::io::stdout().lock();
        while let Some(told) = told.blocking_recv() {
            let line = serde_json::to_string(&told).unwrap_or_default();
            if writeln!(stdout, "{line}").and_then(|()| stdout.flush()).is_err() {
                return;
            }
        }
    });
    let registry = registry(dlock_runtime::connect(&duty.backend).await?)?;
    serve(duty, registry, received, out).await?;
    let _ = writer.join();
    Ok(())
}
