//! The command `dlock`: runs a command under a distributed lock, shows who holds a lock, and ends holds.

mod arguments;
mod bench;
mod confirm;
mod doctor;
mod exit;
mod operate;
mod program;
mod received;
mod run;
mod show;
mod signals;
mod store;
mod supervise;
mod top;
mod watch;

use std::process::ExitCode;

use clap::{CommandFactory as _, Parser as _};

use self::arguments::{Arguments, Command};
use self::exit::{Failure, answer};

fn main() -> ExitCode {
    // Before anything else: these are this program's own children, which must not start a runtime.
    if let Some(code) = supervise::if_asked() {
        return code;
    }
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => return usage(&error),
    };
    log_if_asked();
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    match runtime {
        Ok(runtime) => {
            let code = runtime.block_on(execute(arguments));
            // A lookup of a host name may still block one of its threads.
            runtime.shutdown_background();
            code
        }
        Err(error) => answer(Err(Failure::unavailable(format!("cannot start: {error}")))),
    }
}

async fn execute(arguments: Arguments) -> ExitCode {
    let Arguments { store, command } = arguments;
    let done = match command {
        Command::Run(options) => return run::run(&store, options).await,
        Command::Top(options) => top::top(&store, options).await,
        Command::Watch(options) => watch::watch(&store, options).await,
        Command::Ls { prefix, json } => show::list(&store, &prefix, json).await,
        Command::Who { key, json } => show::who(&store, &key, json).await,
        Command::Revoke { key } => operate::revoke(&store, &key).await,
        Command::Release { key, force, yes } => {
            operate::force_release(&store, &key, force, yes).await
        }
        Command::Doctor { json } => doctor::doctor(&store, json).await,
        Command::Bench(options) => Box::pin(bench::bench(&store, options)).await,
        Command::Health { json } => operate::health(&store, json).await,
        Command::Completions { shell } => {
            clap_complete::generate(
                shell,
                &mut Arguments::command(),
                "dlock",
                &mut std::io::stdout(),
            );
            Ok(ExitCode::SUCCESS)
        }
        Command::Man => operate::man(),
    };
    answer(done)
}

/// Prints help, or what is wrong with the arguments.
fn usage(error: &clap::Error) -> ExitCode {
    let _ = error.print();
    if error.use_stderr() { ExitCode::from(exit::USAGE) } else { ExitCode::SUCCESS }
}

/// Logs to standard error if `RUST_LOG` is set.
fn log_if_asked() {
    if std::env::var_os("RUST_LOG").is_some() {
        tracing_subscriber::fmt()
            .with_env_filter(tracing_subscriber::EnvFilter::from_default_env())
            .with_writer(std::io::stderr)
            .init();
    }
}
