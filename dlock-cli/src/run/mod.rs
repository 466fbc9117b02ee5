//! `dlock run`: a command under a lock.

mod session;
mod terminal;

use std::pin::pin;
use std::process::ExitCode;
use std::time::Duration;

use dlock_runtime::{LockError, LockGuard, Mode, Registry, Wait};

use self::session::{End, Session};
use self::terminal::Terminal;
use crate::arguments::{Patience, RunArguments, StoreArguments};
use crate::exit::{self, Failure};
use crate::received::Signals;
use crate::store::{self, Store};

/// The shortest lease under which a command can be ended in time.
const SHORTEST: Duration = Duration::from_secs(1);

/// How long the release may take when the command has ended.
const RELEASE: Duration = Duration::from_secs(5);

pub async fn run(arguments: &StoreArguments, options: RunArguments) -> ExitCode {
    exit::answer(try_run(arguments, options).await)
}

async fn try_run(arguments: &StoreArguments, options: RunArguments) -> Result<ExitCode, Failure> {
    if options.ttl < SHORTEST {
        let problem =
            format!("`--ttl` is at least {SHORTEST:?}, so that the command can be ended in time");
        return Err(Failure::new(exit::USAGE, problem));
    }
    let terminal = Terminal::open();
    let has_job_control = terminal.as_ref().is_some_and(Terminal::has_job_control);
    // From here on, a signal ends the wait, and not this process alone.
    let mut signals = Signals::of_a_job(has_job_control)?;
    let store = tokio::select! {
        store = store::connect(arguments) => store?,
        signal = signals.next_end() => return Ok(exit::of_signal(signal as i32)),
    };
    let Store { locks, is_session } = store;
    let guard = match acquire(&locks, &options, &mut signals).await {
        Ok(guard) => guard,
        Err(code) => {
            // Whatever was requested is undone.
            let _ = locks.shutdown(RELEASE).await;
            return code;
        }
    };
    let end = match Session::start(&options, &guard, terminal, is_session).await {
        Ok(session) => session.run(&guard, &mut signals).await,
        Err(error) => Err(Failure::unavailable(format!("cannot start the command: {error}"))),
    };
    let released = guard.release().await;
    if locks.shutdown(RELEASE).await.is_err() {
        exit::say("the store did not confirm the release: the lock ends with its lease");
    }
    finish(end?, released)
}

/// The lock, or what to exit with.
async fn acquire(
    locks: &Registry,
    options: &RunArguments,
    signals: &mut Signals,
) -> Result<LockGuard, Result<ExitCode, Failure>> {
    let mut acquiring = pin!(request(locks, options));
    let answer = tokio::select! {
        answer = &mut acquiring => answer,
        signal = signals.next_end() => return Err(Ok(exit::of_signal(signal as i32))),
    };
    answer.map_err(|error| match error {
        LockError::Busy { .. } if options.skip_if_busy => Ok(ExitCode::SUCCESS),
        LockError::Busy { .. } => Err(Failure::new(options.busy_code, error)),
        _ => Err(error.into()),
    })
}

async fn request(locks: &Registry, options: &RunArguments) -> Result<LockGuard, LockError> {
    let wait = match options.wait {
        Some(Patience::For(limit)) => Wait::from(limit),
        None if options.skip_if_busy => Wait::from(Duration::ZERO),
        Some(Patience::Forever) | None => Wait::Forever,
    };
    let program = options.command.first().map(|word| word.display().to_string());
    let mut lock = locks
        .lock(options.key.as_str())
        .ttl(options.ttl)
        .wait(wait)
        .fair(options.fair)
        .label(format!("dlock run {}", program.unwrap_or_default()));
    if options.shared {
        lock = lock.mode(Mode::Shared);
    }
    if let Some(permits) = options.permits {
        lock = lock.permits(permits);
    }
    if let Some(least) = options.min_hold {
        lock = lock.min_hold(least);
    }
    lock.acquire().await
}

fn finish(end: End, released: Result<(), LockError>) -> Result<ExitCode, Failure> {
    if let Err(LockError::Lost { key, reason, .. }) = &released {
        let problem = format!("lock `{key}` was lost while the command ran: {reason}");
        return Err(Failure::new(exit::LOST, problem));
    }
    if let Err(error) = released {
        exit::say(error);
    }
    match end {
        End::Lost => {
            let problem = "the lock was about to be lost, so the command was ended";
            Err(Failure::new(exit::LOST, problem))
        }
        End::Exited(code) => Ok(exit::of_code(code)),
        End::Killed(signal) => Ok(exit::of_signal(signal)),
    }
}
