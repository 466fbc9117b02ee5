//! The screen of `dlock top`.

mod app;
mod detail;
mod draw;
mod list;
mod terminal;
mod theme;

#[cfg(test)]
mod pictures;
#[cfg(test)]
mod tests;

use std::io;
use std::process::ExitCode;
use std::time::Duration;

use crossterm::event::{self, Event, KeyEventKind};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::sync::mpsc::{self, Receiver, Sender};
use tokio::time::{Instant, MissedTickBehavior, interval};

pub use self::app::Title;
use self::app::{App, Next};
use self::terminal::{Screen, has_job_control};
use self::theme::Theme;
use super::model::Model;
use super::sampling::{Answer, Sampler};
use super::shows::Shows;
use crate::exit::{self, Failure};
use crate::received::Signals;

/// How often the age of a picture is drawn anew.
const REDRAW: Duration = Duration::from_millis(500);

/// Signals that end the screen.
const ENDS: [Signal; 4] = [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP, Signal::SIGQUIT];

/// Shows the screen until somebody ends it.
pub async fn show(
    sampler: Sampler,
    model: Model,
    shows: Shows,
    title: Title,
) -> Result<ExitCode, Failure> {
    let stops = has_job_control().then_some(Signal::SIGTSTP);
    let received = Signals::listen(ENDS.into_iter().chain([Signal::SIGCONT]).chain(stops))?;
    let (keys, pressed) = mpsc::channel(16);
    let (answer, answers) = mpsc::channel(1);
    let start = sampler.start();
    let screen = Screen::open().map_err(|error| broken(&error))?;
    std::thread::spawn(move || read_keys(&keys));
    tokio::spawn(sampler.run(answer));
    let app = App::new(model, shows, title);
    Session { app, screen, theme: Theme::of_environment(), start }
        .run(received, pressed, answers)
        .await
}

struct Session {
    app: App,
    screen: Screen,
    theme: Theme,
    start: Instant,
}

impl Session {
    /// The terminal is given back when this ends.
    async fn run(
        mut self,
        mut signals: Signals,
        mut keys: Receiver<io::Result<Event>>,
        mut answers: Receiver<Answer>,
    ) -> Result<ExitCode, Failure> {
        let mut redraw = interval(REDRAW);
        redraw.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                signal = signals.next() => match signal {
                    Signal::SIGTSTP => self.screen.suspend().map_err(|error| broken(&error))?,
                    Signal::SIGCONT => self.screen.resume().map_err(|error| broken(&error))?,
                    _ => return Ok(exit::of_signal(signal as i32)),
                },
                event = keys.recv() => match event {
                    Some(Ok(event)) => match self.handle(&event) {
                        Next::GoOn => {}
                        Next::Suspend => suspend_all(),
                        Next::Quit => return Ok(ExitCode::SUCCESS),
                    },
                    Some(Err(error)) => return Err(broken(&error)),
                    None => return Ok(ExitCode::SUCCESS),
                },
                answer = answers.recv() => match answer {
                    Some(answer) => self.app.note(answer),
                    // It panicked, and its message is on the terminal.
                    None => return Err(Failure::unavailable("no more samples")),
                },
                _ = redraw.tick() => {}
            }
            self.draw().map_err(|error| broken(&error))?;
        }
    }

    fn handle(&mut self, event: &Event) -> Next {
        match event {
            Event::Key(key) if key.kind != KeyEventKind::Release => self.app.press(*key),
            _ => Next::GoOn,
        }
    }

    fn draw(&mut self) -> io::Result<()> {
        let now = self.start.elapsed();
        let (app, theme) = (&mut self.app, self.theme);
        self.screen.terminal.draw(|frame| draw::draw(app, now, theme, frame.buffer_mut()))?;
        Ok(())
    }
}

/// Reads keys until the terminal is gone, or nobody wants them.
fn read_keys(keys: &Sender<io::Result<Event>>) {
    loop {
        let event = event::read();
        let is_last = event.is_err();
        if keys.blocking_send(event).is_err() || is_last {
            return;
        }
    }
}

/// Ctrl-Z is for all that the terminal runs, this process included. Without job control nobody would continue it.
fn suspend_all() {
    if has_job_control() {
        let _ = kill(Pid::from_raw(0), Signal::SIGTSTP);
    }
}

fn broken(error: &io::Error) -> Failure {
    Failure::unavailable(format!("the terminal cannot be used: {error}"))
}
