//! A terminal that a test types into and looks at.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::dlock::{complete, text, until};

/// A terminal with a shell in it.
pub struct Terminal {
    socket: PathBuf,
}

/// What the shell asks for a command with.
const PROMPT: &str = "ready>";

impl Terminal {
    /// Begins in this folder.
    pub fn open(folder: &Path, width: u16, height: u16) -> Self {
        let terminal = Self { socket: folder.join("tmux") };
        let (width, height) = (width.to_string(), height.to_string());
        let mut start = terminal.tmux(&["-f", "/dev/null", "new-session", "-d"]);
        start.args(["-x", &width, "-y", &height]);
        start.args(["env", &format!("PS1={PROMPT}"), "bash", "--norc", "--noprofile", "-i"]);
        let started = complete(start.current_dir(folder));
        assert!(started.status.success(), "{started:?}");
        terminal.shows(PROMPT);
        terminal
    }

    /// Types a line of a shell.
    pub fn line(&self, line: &str) {
        self.types(line);
        self.press("Enter");
    }

    pub fn types(&self, words: &str) {
        self.run(&["send-keys", "-l", words]);
    }

    /// A key, by its name.
    pub fn press(&self, key: &str) {
        self.run(&["send-keys", key]);
    }

    /// What it shows now.
    pub fn screen(&self) -> String {
        self.run(&["capture-pane", "-p"])
    }

    /// Waits until it shows this.
    pub fn shows(&self, part: &str) {
        self.until(part, |screen| screen.contains(part));
    }

    pub fn until(&self, what: &str, mut condition: impl FnMut(&str) -> bool) {
        let mut last = String::new();
        let shown = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            until(what, || {
                last = self.screen();
                condition(&last)
            });
        }));
        assert!(shown.is_ok(), "not shown: {what}\n{last}");
    }

    /// Runs a command in the shell, and waits until it has written this file.
    pub fn writes(&self, command: &str, file: &Path) -> String {
        let name = file.display();
        self.line(&format!("{command} > {name}.new; mv {name}.new {name}"));
        until(command, || file.exists());
        let written = std::fs::read_to_string(file).expect("a file");
        std::fs::remove_file(file).expect("a file");
        written
    }

    /// Waits until the shell has the terminal back: its usual screen, its cursor, and its prompt.
    pub fn is_given_back(&self) {
        self.until("the prompt", |screen| screen.trim_end().lines().last() == Some(PROMPT));
        let state = self.run(&["display-message", "-p", "#{alternate_on} #{cursor_flag}"]);
        assert_eq!(state, "0 1", "the screen is left, and the cursor shown");
    }

    pub fn resize(&self, width: u16, height: u16) {
        let (width, height) = (width.to_string(), height.to_string());
        self.run(&["resize-window", "-x", &width, "-y", &height]);
    }

    /// Closes its window, as a connection that breaks.
    pub fn close(&self) {
        let _ = complete(&mut self.tmux(&["kill-server"]));
    }

    fn run(&self, arguments: &[&str]) -> String {
        let done = complete(&mut self.tmux(arguments));
        assert!(done.status.success(), "{arguments:?}: {done:?}");
        text(&done.stdout).to_owned()
    }

    fn tmux(&self, arguments: &[&str]) -> Command {
        let mut tmux = Command::new("tmux");
        // Its own server, with nothing of the machine's configuration.
        tmux.arg("-u").arg("-S").arg(&self.socket).args(arguments);
        let path = std::env::var_os("PATH").unwrap_or_default();
        tmux.env_clear().env("PATH", path).env("LC_ALL", "C.UTF-8");
        tmux
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        self.close();
    }
}
