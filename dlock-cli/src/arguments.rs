//! The command line.

use std::ffi::OsString;
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use clap_complete::Shell;

/// Distributed locks for scripts and operators.
#[derive(Debug, Parser)]
#[command(name = "dlock", version, about, max_term_width = 100, after_help = EXAMPLES)]
pub struct Arguments {
    #[command(flatten)]
    pub store: StoreArguments,
    #[command(subcommand)]
    pub command: Command,
}

const EXAMPLES: &str = "\
Examples:
  # A cron job that runs on one host at a time, and is skipped elsewhere:
  dlock --backend redis://cache.internal/ run --skip-if-busy nightly-report -- /usr/local/bin/report

  # The URL comes from a file, so that no password is shown by `ps`:
  dlock --backend-file /run/secrets/locks run deploy -- ./deploy.sh

  # Who holds what?
  dlock -b redis://cache.internal/ ls product:

Exit codes: 75 busy, 70 the lock was lost, 69 the store failed, 64 wrong use, 78 wrong configuration.
`dlock run` otherwise exits as the command does: with its code, or with 128 + n if signal n killed it.";

/// A sample reads all locks of the store.
const SHORTEST_INTERVAL: Duration = Duration::from_millis(100);

const STORE: &str = "Where the locks are";

/// Where the locks are.
#[derive(Debug, Args)]
pub struct StoreArguments {
    /// The store: a URL (`redis://…`, `postgres://…`, `sqlite:file.db`, …), or the name of a backend from the
    /// configuration or from a variable `DLOCK_BACKEND_<NAME>`
    #[arg(help_heading = STORE,
        short,
        long,
        global = true,
        value_name = "URL|NAME",
        env = "DLOCK_URL",
        hide_env_values = true
    )]
    pub backend: Option<String>,

    /// A file whose first line is the URL of the store
    #[arg(help_heading = STORE, long, global = true, value_name = "FILE")]
    pub backend_file: Option<PathBuf>,

    /// A configuration in TOML, as services have it; `dlock.toml` if that exists
    #[arg(help_heading = STORE, long, global = true, value_name = "FILE")]
    pub config: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run a command while holding a lock
    #[command(after_help = RUN)]
    Run(RunArguments),

    /// Watch the locks, and who is waited for
    #[command(after_help = TOP)]
    Top(TopArguments),

    /// Record a timeline of the locks as a page for a browser
    #[command(after_help = WATCH)]
    Watch(WatchArguments),

    /// List the locks that are held or waited for
    Ls {
        /// Only keys that begin with this
        #[arg(default_value = "")]
        prefix: String,
        /// Print an array of JSON objects
        #[arg(long)]
        json: bool,
    },

    /// Show who holds a lock and who waits for it; exit code 1 if nobody does
    Who {
        key: String,
        /// Print a JSON object
        #[arg(long)]
        json: bool,
    },

    /// End a hold safely: its holder notices at its next renewal, and nobody else gets the lock before that
    Revoke { key: String },

    /// Free a lock at once, although its holder may still be running
    Release {
        key: String,
        /// Required, because two holders may overlap until the first one notices
        #[arg(long, required = true)]
        force: bool,
        /// Do not ask
        #[arg(long)]
        yes: bool,
    },

    /// Look for settings of the server that endanger locks, and time a lock; exit code 1 if there are any
    Doctor {
        /// Print a JSON object
        #[arg(long)]
        json: bool,
    },

    /// Measure how fast locks are on this store from this machine, beside the store's own limit
    #[command(after_help = BENCH)]
    Bench(BenchArguments),

    /// Check that the store can be reached; it is only read
    Health {
        /// Print a JSON object
        #[arg(long)]
        json: bool,
    },

    /// Print completions for a shell
    Completions { shell: Shell },

    /// Print the manual page
    Man,
}

const RUN: &str = "\
The command gets SIGTERM when its lock is about to be lost (the store cannot be reached, or somebody revoked the lock),
and SIGKILL before anybody else can get the lock. Signals that dlock receives are passed to the command and its children.
DLOCK_KEY and DLOCK_TOKEN are set in its environment; the token grows with each hold, so that a store can refuse writes of
an earlier one.

Examples:
  dlock -b sqlite:/var/lib/locks.db run backup -- tar cf /backup/home.tar /home
  dlock -b redis://cache.internal/ run --wait 30s --ttl 10s deploy -- ./deploy.sh
  dlock -b redis://cache.internal/ run --permits 3 import -- ./import.sh";

const TOP: &str = "\
Tab changes between two views. The locks: who holds each, and who waits for it. The blame: for
which site (an annotated function) others have waited, how long, and who they were. The store is
only read. `?` shows the keys.

Examples:
  dlock -b redis://cache.internal/ top product:
  dlock -b redis://cache.internal/ top --once --json --interval 10s";

/// What is watched.
#[derive(Debug, Args)]
pub struct TopArguments {
    /// Only keys that begin with this
    #[arg(default_value = "")]
    pub prefix: String,

    /// How often the store is asked, at least every 100ms
    #[arg(long, value_name = "DURATION", default_value = "1s", value_parser = interval)]
    pub interval: Duration,

    /// Print what two samples show, and exit
    #[arg(long)]
    pub once: bool,

    /// Print a JSON object
    #[arg(long, requires = "once")]
    pub json: bool,
}

const WATCH: &str = "\
The page needs no network and no server: open it in a browser, or attach it to a ticket. It shows
who held which lock when, who waited for it, and where a holder vanished. The wheel zooms, the mouse
moves. The store is only read. Ctrl-C ends the recording; the page is also written every 5s.

Examples:
  dlock -b redis://cache.internal/ watch --html locks.html
  dlock -b redis://cache.internal/ watch product: --html night.html --for 8h --interval 1s";

/// What is recorded.
#[derive(Debug, Args)]
pub struct WatchArguments {
    /// Only keys that begin with this
    #[arg(default_value = "")]
    pub prefix: String,

    /// The page; an earlier one is replaced
    #[arg(long, value_name = "FILE")]
    pub html: PathBuf,

    /// For how long; until Ctrl-C or SIGTERM if this is not set
    #[arg(long = "for", value_name = "DURATION", value_parser = humantime::parse_duration)]
    pub duration: Option<Duration>,

    /// How often the store is asked, at least every 100ms
    #[arg(long, value_name = "DURATION", default_value = "200ms", value_parser = interval)]
    pub interval: Duration,
}

const BENCH: &str = "\
The limit is the least that any client could send to this store, at the same concurrency. All keys
begin with a random prefix, and nothing is left behind. The server is loaded as much as it can
take, so others notice.

Examples:
  dlock -b redis://cache.internal/ bench
  dlock -b postgres://db.internal/app bench --seconds 10 --keys 100 --yes --json";

/// What is measured.
#[derive(Debug, Args)]
pub struct BenchArguments {
    /// How long each of the measurements takes
    #[arg(long, value_name = "SECONDS", default_value = "5", value_parser = seconds)]
    pub seconds: Duration,

    /// How many tasks acquire keys of their own at the same time
    #[arg(long, value_name = "N", default_value_t = 16, value_parser = clap::value_parser!(u16).range(1..=1_000))]
    pub keys: u16,

    /// How many connections, each as a process of its own, want the same key
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u16).range(2..=100))]
    pub waiters: u16,

    /// Do not ask
    #[arg(long)]
    pub yes: bool,

    /// Print a JSON object
    #[arg(long)]
    pub json: bool,
}

/// How a command is run under a lock.
#[derive(Debug, Args)]
pub struct RunArguments {
    /// The lock
    pub key: String,

    /// The command and its arguments
    #[arg(last = true, required = true, value_name = "COMMAND")]
    pub command: Vec<OsString>,

    /// How long the lease lasts without a renewal: after a crash of this host, others wait no longer than that
    #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = humantime::parse_duration)]
    pub ttl: Duration,

    /// How long to wait for the lock: a duration such as `30s`, or `forever`, which is the default
    #[arg(long, value_name = "DURATION", value_parser = wait)]
    pub wait: Option<Patience>,

    /// If the lock is busy, exit with code 0 and without running the command: at once, or after `--wait`
    #[arg(long, conflicts_with = "busy_code")]
    pub skip_if_busy: bool,

    /// The exit code if the lock is busy
    #[arg(long, value_name = "CODE", default_value_t = crate::exit::BUSY)]
    pub busy_code: u8,

    /// Hold the lock together with others that are `--shared`
    #[arg(long, conflicts_with = "permits")]
    pub shared: bool,

    /// Let this many commands run at the same time
    #[arg(long, value_name = "N")]
    pub permits: Option<NonZeroU32>,

    /// Wait in the order of all callers
    #[arg(long)]
    pub fair: bool,

    /// Keep the lock for at least this long, even if the command ends sooner
    #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration)]
    pub min_hold: Option<Duration>,

    /// How long the command may take to end after SIGTERM, before it gets SIGKILL; less if the lock would be lost sooner
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = humantime::parse_duration)]
    pub kill_after: Duration,
}

/// How long to wait for a lock.
#[derive(Clone, Copy, Debug)]
pub enum Patience {
    Forever,
    For(Duration),
}

fn interval(text: &str) -> Result<Duration, String> {
    let interval = humantime::parse_duration(text).map_err(|error| error.to_string())?;
    if interval < SHORTEST_INTERVAL {
        return Err(format!(
            "at least {SHORTEST_INTERVAL:?}, so that the store has time for locks"
        ));
    }
    Ok(interval)
}

/// All times are kept until they are sorted, so not for too long.
fn seconds(text: &str) -> Result<Duration, String> {
    let seconds: f64 = text.parse().map_err(|_| "a number of seconds".to_owned())?;
    if (0.05..=120.0).contains(&seconds) {
        Ok(Duration::from_secs_f64(seconds))
    } else {
        Err("from 0.05 to 120 seconds".to_owned())
    }
}

fn wait(text: &str) -> Result<Patience, String> {
    if text == "forever" {
        return Ok(Patience::Forever);
    }
    if text == "0" {
        return Ok(Patience::For(Duration::ZERO));
    }
    humantime::parse_duration(text).map(Patience::For).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_arguments_are_consistent() {
        Arguments::command().debug_assert();
    }
}
