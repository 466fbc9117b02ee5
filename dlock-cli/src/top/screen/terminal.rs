//! The terminal: it is taken for the screen, and given back whatever happens.

use std::io::{self, Stdout, stdout};
use std::sync::Once;
use std::sync::atomic::{AtomicBool, Ordering};

use crossterm::cursor::{Hide, Show};
use crossterm::execute;
use crossterm::terminal::{
    EnterAlternateScreen, LeaveAlternateScreen, disable_raw_mode, enable_raw_mode,
};
use nix::sys::signal::{Signal, raise};
use nix::unistd::{getpgrp, getsid};
use ratatui::Terminal;
use ratatui::backend::CrosstermBackend;
use ratatui::layout::{Position, Rect};

/// Has the screen the terminal?
static IS_TAKEN: AtomicBool = AtomicBool::new(false);

/// The terminal while the screen has it.
pub struct Screen {
    pub terminal: Terminal<CrosstermBackend<Stdout>>,
}

impl Screen {
    pub fn open() -> io::Result<Self> {
        give_back_in_a_panic();
        let terminal = Terminal::new(CrosstermBackend::new(stdout()))?;
        let screen = Self { terminal };
        take()?;
        Ok(screen)
    }

    /// Stops this process, as Ctrl-Z does. The shell continues with its own terminal.
    pub fn suspend(&mut self) -> io::Result<()> {
        give_back();
        let _ = raise(Signal::SIGSTOP);
        self.resume()
    }

    /// The process was stopped and continues: others may have changed the terminal.
    pub fn resume(&mut self) -> io::Result<()> {
        let _ = disable_raw_mode();
        take()?;
        // `Terminal::clear` asks the terminal where its cursor is, and the answer would be taken for keys.
        let size = self.terminal.size()?;
        self.terminal.resize(Rect::from((Position::ORIGIN, size)))
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        give_back();
    }
}

/// Is there a shell that continues when this process is stopped?
pub fn has_job_control() -> bool {
    getsid(None).is_ok_and(|session| session != getpgrp())
}

/// First the mode: a process in the background is stopped here, before it has written anything.
fn take() -> io::Result<()> {
    enable_raw_mode()?;
    IS_TAKEN.store(true, Ordering::SeqCst);
    execute!(stdout(), EnterAlternateScreen, Hide)
}

/// If the terminal is gone, there is nothing to give back.
fn give_back() {
    // A second time, the cursor would go back to where it was, and what was written since then would be overwritten.
    if !IS_TAKEN.swap(false, Ordering::SeqCst) {
        return;
    }
    let _ = execute!(stdout(), LeaveAlternateScreen, Show);
    let _ = disable_raw_mode();
}

/// A message would be lost with the screen.
fn give_back_in_a_panic() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let show = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            give_back();
            show(panic);
        }));
    });
}
