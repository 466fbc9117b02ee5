//! `dlock doctor`: what endangers locks on this server, and how fast it is from here.

#[cfg(feature = "mysql")]
mod mysql;
#[cfg(feature = "postgres")]
mod postgres;
#[cfg(feature = "redis")]
mod redis;
#[cfg(feature = "sqlite")]
mod sqlite;
mod trial;

use std::fmt::Display;
use std::process::ExitCode;
use std::time::Duration;

use serde_json::{Value, json};

use self::trial::Trial;
use crate::arguments::StoreArguments;
use crate::exit::{Failure, UNHEALTHY};
use crate::store;

/// How long a server may take to tell its settings.
const ASKING: Duration = Duration::from_secs(10);

/// What endangers locks, and what to do.
#[derive(Debug)]
struct Finding {
    grade: Grade,
    what: String,
    advice: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Grade {
    /// A lock can be lost, or be granted twice, although no process and no server has failed, or after a restart that
    /// keeps the data.
    Danger,
    /// It matters in some cases.
    Note,
}

/// What was found.
#[derive(Debug, Default)]
struct Findings(Vec<Finding>);

impl Findings {
    fn danger(&mut self, what: impl Display, advice: impl Display) {
        self.add(Grade::Danger, what, advice);
    }

    fn note(&mut self, what: impl Display, advice: impl Display) {
        self.add(Grade::Note, what, advice);
    }

    /// The settings could not be read.
    fn unread(&mut self, error: impl Display) {
        self.note(
            format!("the settings of the server could not be read: {error}"),
            "check them by hand; the page of the store in the library's guide lists them",
        );
    }

    fn add(&mut self, grade: Grade, what: impl Display, advice: impl Display) {
        self.0.push(Finding { grade, what: what.to_string(), advice: advice.to_string() });
    }

    fn is_healthy(&self) -> bool {
        self.0.iter().all(|finding| finding.grade != Grade::Danger)
    }
}

pub async fn doctor(arguments: &StoreArguments, as_json: bool) -> Result<ExitCode, Failure> {
    let (_, url) = store::find(arguments)?;
    let mut findings = Findings::default();
    if tokio::time::timeout(ASKING, examine(&url, &mut findings)).await.is_err() {
        findings.unread(format_args!("no answer within {ASKING:?}"));
    }
    let trial = match store::connect(arguments).await {
        Ok(store) => Some(Trial::of(&store.locks).await?),
        Err(failure) if findings.is_healthy() => return Err(failure),
        Err(failure) => {
            findings.danger(format_args!("the store cannot be used: {failure}"), "see above");
            None
        }
    };
    if as_json {
        println!("{:#}", of_all(&findings, trial.as_ref()));
    } else {
        print(&findings, trial.as_ref());
    }
    Ok(if findings.is_healthy() { ExitCode::SUCCESS } else { ExitCode::from(UNHEALTHY) })
}

/// Asks the server for its settings.
#[cfg_attr(
    not(any(feature = "redis", feature = "postgres", feature = "mysql")),
    expect(clippy::unused_async, reason = "servers alone are awaited")
)]
async fn examine(url: &str, findings: &mut Findings) {
    let scheme = url.split(':').next().unwrap_or_default();
    match scheme {
        #[cfg(feature = "redis")]
        "redis" | "rediss" => redis::examine(url, findings).await,
        #[cfg(feature = "postgres")]
        "postgres" | "postgresql" => postgres::examine(url, findings).await,
        #[cfg(feature = "mysql")]
        "mysql" | "mariadb" => mysql::examine(url, findings).await,
        #[cfg(feature = "sqlite")]
        "sqlite" => sqlite::examine(url, findings),
        _ => findings.unread(format_args!("this command does not know those of `{scheme}:`")),
    }
}

fn print(findings: &Findings, trial: Option<&Trial>) {
    if let Some(trial) = trial {
        println!("{trial}");
    }
    for Finding { grade, what, advice } in &findings.0 {
        let grade = if *grade == Grade::Danger { "DANGER" } else { "note  " };
        println!("{grade}  {what}\n        {advice}");
    }
    if findings.0.is_empty() {
        println!("nothing endangers locks here");
    }
}

fn of_all(findings: &Findings, trial: Option<&Trial>) -> Value {
    let of_finding = |finding: &Finding| {
        json!({
            "grade": if finding.grade == Grade::Danger { "danger" } else { "note" },
            "what": finding.what,
            "advice": finding.advice,
        })
    };
    json!({
        "healthy": findings.is_healthy(),
        "findings": findings.0.iter().map(of_finding).collect::<Vec<_>>(),
        "trial": trial.map(Trial::to_json),
    })
}
