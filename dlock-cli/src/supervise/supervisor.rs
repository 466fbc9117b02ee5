//! The supervisor: one thread reads orders, one waits for children, and the main thread decides.

use std::ffi::{OsStr, OsString};
use std::io::{self, BufRead, BufReader};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt as _;
use std::process::{Command, ExitCode};
use std::sync::mpsc::{self, Receiver, Sender};
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::signal::Signal;
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

use super::descendants::Orphans;
use super::messages::{BootTime, Limits, Order, Report};
use super::{EXECUTE, Group, children, socket};
use crate::exit::{UNAVAILABLE, say};
use crate::{program, signals};

/// How often the clock is read. A timer does not count the time that the machine is suspended.
const TICK: Duration = Duration::from_millis(50);

/// How long a report may wait for a `dlock run` that does not read it.
const REPORTING: Duration = Duration::from_millis(100);

/// What happens to a supervisor.
pub enum Event {
    Order(Order),
    /// `dlock run` is gone.
    Alone,
    /// A child has ended or was stopped.
    Child,
    /// There is no child any more.
    NoChild,
}

/// Starts the command and ends it in time. The first order says until when.
pub fn supervise(name: &OsStr, command: &[OsString]) -> ExitCode {
    // Whoever ends all processes of a service ends this one with the command, which may take its time.
    signals::survive_those_of_a_job();
    match Supervisor::start(name, command) {
        Ok(supervisor) => {
            supervisor.run();
            ExitCode::SUCCESS
        }
        Err(error) => {
            say(format_args!("cannot start the command: {error}"));
            ExitCode::from(UNAVAILABLE)
        }
    }
}

struct Supervisor {
    reports: UnixStream,
    events: Receiver<Event>,
    /// Continues the wait for children.
    seen: Sender<()>,
    group: Group,
    orphans: Orphans,
    limits: Limits,
    held_until: BootTime,
    /// When everything is killed, once it was asked to end.
    kill_at: Option<BootTime>,
    is_killed: bool,
    has_ended: bool,
}

impl Supervisor {
    fn start(name: &OsStr, command: &[OsString]) -> io::Result<Self> {
        // Descendants whose parent has ended become children of this process, so that it can end them.
        #[cfg(target_os = "linux")]
        nix::sys::prctl::set_child_subreaper(true)?;
        let reports = socket::connect(name)?;
        reports.set_write_timeout(Some(REPORTING))?;
        let mut orders = BufReader::new(reports.try_clone()?);
        let Some(Order::Begin { until, limits }) = next_order(&mut orders) else {
            return Err(io::Error::other("`dlock run` is gone"));
        };
        if BootTime::now().until(until) <= limits.end_before {
            return Err(io::Error::other("the lock is about to be lost"));
        }
        // By the main thread, which lives as long as the process: the kernel kills the command when the thread that has
        // started it ends.
        let child = Command::new(program::path())
            .arg0("dlock")
            .arg(EXECUTE)
            .arg(std::process::id().to_string())
            .args(command)
            .process_group(0)
            .spawn()?;
        let id = i32::try_from(child.id()).map_err(io::Error::other)?;
        let (sender, events) = mpsc::channel();
        let (seen, next) = mpsc::channel();
        let of_children = sender.clone();
        std::thread::spawn(move || read_orders(orders, &sender));
        std::thread::spawn(move || children::watch(&of_children, &next));
        let group = Group::new(id);
        let supervisor = Self {
            reports,
            events,
            seen,
            group,
            orphans: Orphans::outside(group),
            limits,
            held_until: until,
            kill_at: None,
            is_killed: false,
            has_ended: false,
        };
        supervisor.report(Report::Started { id });
        Ok(supervisor)
    }

    fn run(mut self) {
        while !self.is_over() {
            self.end_in_time();
            match self.events.recv_timeout(self.next_look()) {
                Ok(event) => self.note(&event),
                Err(mpsc::RecvTimeoutError::Timeout) => {}
                Err(mpsc::RecvTimeoutError::Disconnected) => std::thread::sleep(TICK),
            }
        }
        self.report(Report::Gone);
    }

    /// Is nothing left that it has started?
    fn is_over(&mut self) -> bool {
        self.has_ended && self.group.is_empty(self.is_killed) && self.orphans.find().is_empty()
    }

    /// When the clock is read again: at the next deadline, if that is soon.
    fn next_look(&self) -> Duration {
        let left = BootTime::now().until(self.held_until);
        let deadlines = [self.limits.end_before, self.limits.kill_before];
        let deadlines = deadlines.into_iter().filter_map(|before| left.checked_sub(before));
        let soonest = deadlines.filter(|left| !left.is_zero()).min().unwrap_or(TICK);
        soonest.clamp(Duration::from_millis(1), TICK)
    }

    fn note(&mut self, event: &Event) {
        match *event {
            Event::Order(Order::Held { until } | Order::Begin { until, .. }) => {
                self.held_until = self.held_until.max(until);
            }
            Event::Order(Order::End) | Event::Alone => self.end(),
            Event::Child => {
                self.reap();
                // The main thread alone reaps, so that no process id is used again before it is signalled.
                let _ = self.seen.send(());
            }
            Event::NoChild => self.ended(None),
        }
    }

    fn reap(&mut self) {
        let leader = self.group.id();
        loop {
            let flags = WaitPidFlag::WNOHANG | WaitPidFlag::WUNTRACED;
            match waitpid(None::<Pid>, Some(flags)) {
                Ok(WaitStatus::StillAlive) => return,
                Ok(WaitStatus::Exited(id, code)) if id == leader => {
                    self.ended(Some(Report::Exited { code }));
                }
                Ok(WaitStatus::Signaled(id, signal, _)) if id == leader => {
                    self.ended(Some(Report::Killed { signal: signal as i32 }));
                }
                Ok(WaitStatus::Stopped(id, signal)) if id == leader => {
                    self.report(Report::Stopped { signal: signal as i32 });
                }
                Ok(_) | Err(Errno::EINTR) => {}
                Err(_) => return,
            }
        }
    }

    /// The command has ended. What it has left behind ends with it.
    fn ended(&mut self, report: Option<Report>) {
        if let Some(report) = report {
            self.report(report);
        }
        if !self.has_ended {
            self.has_ended = true;
            self.end();
        }
    }

    fn end_in_time(&mut self) {
        let now = BootTime::now();
        let left = now.until(self.held_until);
        if left <= self.limits.end_before && self.kill_at.is_none() {
            self.report(Report::Ending);
            self.end();
        }
        if self.kill_at.is_some() {
            // Those that have lost their parent since.
            self.orphans.terminate();
        }
        if left <= self.limits.kill_before || self.kill_at.is_some_and(|at| now >= at) {
            self.kill();
        }
    }

    /// Asks everything to end, and limits how long that may take.
    fn end(&mut self) {
        if self.kill_at.is_none() {
            self.kill_at = Some(BootTime::now().after(self.limits.kill_after));
            self.group.terminate();
            self.orphans.terminate();
        }
    }

    fn kill(&mut self) {
        self.kill_at.get_or_insert_with(BootTime::now);
        self.is_killed = true;
        self.group.send(Signal::SIGKILL);
        self.orphans.kill();
    }

    /// If `dlock run` is gone or stopped, the report is lost.
    fn report(&self, report: Report) {
        let _ = super::messages::write(&self.reports, &report);
    }
}

fn next_order(orders: &mut impl BufRead) -> Option<Order> {
    let mut line = String::new();
    orders.read_line(&mut line).ok()?;
    serde_json::from_str(&line).ok()
}

fn read_orders(mut orders: BufReader<UnixStream>, events: &Sender<Event>) {
    while let Some(order) = next_order(&mut orders) {
        if events.send(Event::Order(order)).is_err() {
            return;
        }
    }
    let _ = events.send(Event::Alone);
}
