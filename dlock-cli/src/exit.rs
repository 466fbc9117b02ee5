//! Exit codes and error messages.

use std::error::Error as _;
use std::fmt;
use std::io::{self, Write as _};
use std::process::ExitCode;

use dlock_runtime::config::ConfigError;
use dlock_runtime::{BackendError, BuildError, LockError};

/// The lock was busy until the wait was over (`EX_TEMPFAIL`).
pub const BUSY: u8 = 75;
/// The store cannot be reached, or refused a request (`EX_UNAVAILABLE`).
pub const UNAVAILABLE: u8 = 69;
/// The lock was lost while the command ran (`EX_SOFTWARE`).
pub const LOST: u8 = 70;
/// Wrong use of the command (`EX_USAGE`).
pub const USAGE: u8 = 64;
/// A wrong configuration (`EX_CONFIG`).
pub const CONFIG: u8 = 78;
/// What was looked for is not there.
pub const NOT_FOUND: u8 = 1;

/// `dlock doctor` has found a danger.
pub const UNHEALTHY: u8 = 1;

/// Why the command ended, for a person and for a script.
#[derive(Debug)]
pub struct Failure {
    code: u8,
    message: String,
}

impl Failure {
    pub fn new(code: u8, message: impl fmt::Display) -> Self {
        Self { code, message: message.to_string() }
    }

    pub fn unavailable(message: impl fmt::Display) -> Self {
        Self::new(UNAVAILABLE, message)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl From<LockError> for Failure {
    fn from(error: LockError) -> Self {
        let code = match &error {
            LockError::Busy { .. } => BUSY,
            LockError::Lost { .. } | LockError::HeldTooLong { .. } => LOST,
            LockError::InvalidKey { .. } | LockError::Unsupported { .. } => USAGE,
            LockError::UnknownBackend { .. } => CONFIG,
            _ => UNAVAILABLE,
        };
        Self::new(code, explained(&error))
    }
}

/// What happened, why, and what to do.
fn explained(error: &LockError) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(source) = cause {
        text += ": ";
        text += &source.to_string();
        cause = source.source();
    }
    // What the store reported is part of the text already.
    if let Some(hint) = error.hint().filter(|_| error.source().is_none()) {
        text += "; ";
        text += hint;
    }
    text
}

impl From<BackendError> for Failure {
    fn from(error: BackendError) -> Self {
        Self::unavailable(error)
    }
}

impl From<ConfigError> for Failure {
    fn from(error: ConfigError) -> Self {
        let code = if matches!(error, ConfigError::Backend { .. }) { UNAVAILABLE } else { CONFIG };
        Self::new(code, error)
    }
}

impl From<BuildError> for Failure {
    fn from(error: BuildError) -> Self {
        Self::new(CONFIG, error)
    }
}

/// Writes one line to standard error if there is something to say.
pub fn answer(done: Result<ExitCode, Failure>) -> ExitCode {
    done.unwrap_or_else(|Failure { code, message }| {
        say(message);
        ExitCode::from(code)
    })
}

/// Writes one line to standard error. If it is closed or full, the exit code has to do.
pub fn say(message: impl fmt::Display) {
    let _ = writeln!(io::stderr(), "dlock: {message}");
}

/// As a command exited.
pub fn of_code(code: i32) -> ExitCode {
    ExitCode::from(u8::try_from(code).unwrap_or(u8::MAX))
}

/// As a shell says that a signal has killed a command.
pub fn of_signal(signal: i32) -> ExitCode {
    of_code(128 + signal)
}
