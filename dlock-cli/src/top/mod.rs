//! `dlock top`: the locks of a store, and who is waited for.

pub mod blame;
mod locks;
pub mod model;
mod once;
pub mod sampling;
mod screen;
pub mod shows;
pub mod table;
pub mod text;

use std::io::{IsTerminal as _, stdout};
use std::process::ExitCode;

use self::model::Model;
use self::sampling::Sampler;
use self::screen::Title;
use self::shows::Shows;
use crate::arguments::{StoreArguments, TopArguments};
use crate::exit::{Failure, USAGE};
use crate::store;

pub async fn top(arguments: &StoreArguments, options: TopArguments) -> Result<ExitCode, Failure> {
    if !options.once {
        check_terminal()?;
    }
    let (name, url) = store::find(arguments)?;
    let shows = Shows::of(&url);
    let locks = store::connect(arguments).await?.locks;
    let title = Title {
        store: store::shown(&name, &url),
        prefix: options.prefix.clone(),
        interval: options.interval,
    };
    let sampler = Sampler::new(locks, options.prefix, options.interval);
    let model = Model::new(shows.knows_grants());
    if options.once {
        return print(&sampler, model, shows, options.interval, options.json).await;
    }
    screen::show(sampler, model, shows, title).await
}

/// A screen needs a terminal whose cursor moves.
fn check_terminal() -> Result<(), Failure> {
    if !stdout().is_terminal() {
        let problem = "standard output is not a terminal: use `dlock top --once`";
        return Err(Failure::new(USAGE, problem));
    }
    if std::env::var_os("TERM").is_none_or(|name| name.is_empty() || name == "dumb") {
        let problem = "a terminal is needed whose cursor can be moved, and `TERM` names none: use `dlock top --once`";
        return Err(Failure::new(USAGE, problem));
    }
    Ok(())
}

/// Prints what two samples show.
async fn print(
    sampler: &Sampler,
    mut model: Model,
    shows: Shows,
    interval: std::time::Duration,
    as_json: bool,
) -> Result<ExitCode, Failure> {
    let (at, locks) = sampler.sample().await.map_err(Failure::unavailable)?;
    model.sample(at, locks);
    tokio::time::sleep(interval).await;
    let (at, locks) = sampler.sample().await.map_err(Failure::unavailable)?;
    model.sample(at, locks);
    if as_json {
        once::print(&format!("{:#}\n", once::json(&model, shows)));
    } else {
        once::print(&once::text(&model, shows));
    }
    Ok(ExitCode::SUCCESS)
}
