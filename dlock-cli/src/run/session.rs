//! A command that runs, seen from `dlock run`.

use std::io;
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command};
use std::time::Duration;

use dlock_runtime::LockGuard;
use nix::sys::signal::{Signal, raise};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, Lines};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};

use super::terminal::Terminal;
use crate::arguments::RunArguments;
use crate::exit::Failure;
use crate::program;
use crate::received::Signals;
use crate::supervise::messages::line;
use crate::supervise::{BootTime, Group, Limits, Order, Report, SUPERVISE, socket};

/// How long the supervisor may take to start.
const STARTING: Duration = Duration::from_secs(10);

/// How often the lease is looked at.
const TICK: Duration = Duration::from_millis(50);

/// How the command ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    Exited(i32),
    Killed(i32),
    /// It was ended because the lock was lost, or about to be.
    Lost,
}

/// The supervisor's process. It is killed, and with it the command, unless it has ended.
struct Supervisor(Child);

impl Drop for Supervisor {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

pub struct Session {
    supervisor: Supervisor,
    orders: OwnedWriteHalf,
    reports: Lines<BufReader<OwnedReadHalf>>,
    group: Group,
    limits: Limits,
    terminal: Option<Terminal>,
    /// The proof that the supervisor knows of.
    held_until: BootTime,
    /// When the lease was last looked at.
    looked: BootTime,
    end: Option<End>,
    /// This process was stopped with the command, and continues.
    resumes: bool,
}

impl Session {
    /// Starts the command.
    pub async fn start(
        options: &RunArguments,
        guard: &LockGuard,
        terminal: Option<Terminal>,
        is_session: bool,
    ) -> io::Result<Self> {
        let name = socket::new_name();
        let listener = socket::listen(&name)?;
        let mut supervisor = Supervisor(
            Command::new(program::path())
                .arg0("dlock")
                .arg(SUPERVISE)
                .arg(&name)
                .args(&options.command)
                .env("DLOCK_KEY", guard.key().as_str())
                .env("DLOCK_TOKEN", guard.fencing_token().to_string())
                .process_group(0)
                .spawn()?,
        );
        let stream = timeout(STARTING, accept(&listener, &mut supervisor.0)).await;
        socket::close(listener);
        let stream = stream.map_err(|_| io::Error::other("its supervisor does not answer"))??;
        let (reports, mut orders) = stream.into_split();
        let mut reports = BufReader::new(reports).lines();
        let (looked, until) = proof(guard);
        let limits = Limits::of(looked.until(until), options.kill_after, is_session);
        orders.write_all(line(&Order::Begin { until, limits })?.as_bytes()).await?;
        let started = timeout(STARTING, next_report(&mut reports)).await;
        let Ok(Some(Report::Started { id })) = started else {
            return Err(io::Error::other("its supervisor could not start it"));
        };
        Ok(Self {
            supervisor,
            orders,
            reports,
            group: Group::new(id),
            limits,
            terminal,
            held_until: until,
            looked,
            end: None,
            resumes: false,
        })
    }

    /// Runs until nothing of the command is left.
    pub async fn run(mut self, guard: &LockGuard, signals: &mut Signals) -> Result<End, Failure> {
        let mut is_lost = false;
        // It goes on through whatever else happens: without it, the supervisor would learn of no renewal.
        let mut tick = interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                // First what has become of the command: then no signal is sent to a group that is gone. Last what may
                // come at any rate.
                biased;
                report = next_report(&mut self.reports) => match report {
                    Some(Report::Gone) => break,
                    Some(report) => self.note(report),
                    None => return self.without_supervisor().await,
                },
                _ = guard.lost(), if !is_lost => {
                    is_lost = true;
                    self.end.get_or_insert(End::Lost);
                    self.order(&Order::End).await;
                }
                _ = tick.tick() => self.look(guard).await,
                signal = signals.next() => self.pass_on(signal),
            }
        }
        self.take_terminal_back();
        Ok(self.end.unwrap_or(End::Lost))
    }

    fn note(&mut self, report: Report) {
        match report {
            Report::Exited { code } => _ = self.end.get_or_insert(End::Exited(code)),
            Report::Killed { signal } => _ = self.end.get_or_insert(End::Killed(signal)),
            Report::Ending => _ = self.end.get_or_insert(End::Lost),
            Report::Stopped { signal } => self.command_stopped(signal),
            Report::Started { .. } | Report::Gone => {}
        }
    }

    fn pass_on(&self, signal: Signal) {
        self.group.send(signal);
        if !matches!(signal, Signal::SIGTSTP | Signal::SIGWINCH) {
            // One that is stopped would not notice.
            self.group.send(Signal::SIGCONT);
        }
    }

    /// Looks at the lease, and tells the supervisor. Ends the command if the supervisor does not.
    async fn look(&mut self, guard: &LockGuard) {
        let (now, until) = proof(guard);
        // After a pause, first what the supervisor has done meanwhile.
        let was_paused = self.looked.until(now) > 10 * TICK;
        self.looked = now;
        if was_paused {
            return;
        }
        if std::mem::take(&mut self.resumes) {
            self.group.send(Signal::SIGCONT);
        }
        if until > self.held_until.after(TICK / 2) {
            self.held_until = until;
            self.order(&Order::Held { until }).await;
        }
        let left = now.until(self.held_until);
        if left <= self.limits.kill_before / 2 {
            self.group.send(Signal::SIGKILL);
        }
        if left.is_zero() {
            // It is stopped. The kernel kills the command with it.
            let _ = self.supervisor.0.kill();
        }
    }

    /// Without this order, the supervisor ends the command in time.
    async fn order(&mut self, order: &Order) {
        if let Ok(line) = line(order) {
            let _ = timeout(TICK, self.orders.write_all(line.as_bytes())).await;
        }
    }

    /// The kernel has killed the command; this kills the rest of its group.
    async fn without_supervisor(&mut self) -> Result<End, Failure> {
        let _ = self.supervisor.0.kill();
        let _ = self.supervisor.0.wait();
        while !self.group.is_empty(true) && BootTime::now() < self.held_until {
            self.group.send(Signal::SIGKILL);
            sleep(TICK / 10).await;
        }
        self.take_terminal_back();
        if self.end == Some(End::Lost) {
            return Ok(End::Lost);
        }
        let problem = "the supervisor of the command was killed, so the command was killed too";
        Err(Failure::unavailable(problem))
    }

    /// The command wants the terminal, or somebody has stopped it. In the latter case this process stops as well, so that
    /// the shell continues. Meanwhile the lease is not renewed, and the supervisor ends the command before it is over.
    fn command_stopped(&mut self, signal: i32) {
        let Some(terminal) = &self.terminal else { return };
        let wants_it = [Signal::SIGTTIN as i32, Signal::SIGTTOU as i32].contains(&signal);
        if wants_it && terminal.give_to(self.group) {
            self.group.send(Signal::SIGCONT);
        } else if terminal.has_job_control() {
            terminal.take_from(self.group);
            let _ = raise(Signal::SIGSTOP);
            self.resumes = true;
        }
    }

    fn take_terminal_back(&self) {
        if let Some(terminal) = &self.terminal {
            terminal.take_from(self.group);
        }
    }
}

async fn accept(
    listener: &std::os::unix::net::UnixListener,
    supervisor: &mut Child,
) -> io::Result<UnixStream> {
    listener.set_nonblocking(true)?;
    loop {
        match listener.accept() {
            Ok((stream, _)) => {
                stream.set_nonblocking(true)?;
                let stream = UnixStream::from_std(stream)?;
                let peer = stream.peer_cred()?.pid().and_then(|id| u32::try_from(id).ok());
                if peer == Some(supervisor.id()) {
                    return Ok(stream);
                }
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                if supervisor.try_wait()?.is_some() {
                    return Err(io::Error::other("its supervisor has ended"));
                }
                sleep(Duration::from_millis(1)).await;
            }
            Err(error) => return Err(error),
        }
    }
}

/// Cancel safe.
async fn next_report(reports: &mut Lines<BufReader<OwnedReadHalf>>) -> Option<Report> {
    let line = reports.next_line().await.ok()??;
    serde_json::from_str(&line).ok()
}

/// Now, and until when the lock is certain to be held.
fn proof(guard: &LockGuard) -> (BootTime, BootTime) {
    // The clock first: the proof is only shorter then.
    let now = BootTime::now();
    (now, now.after(guard.remaining()))
}
