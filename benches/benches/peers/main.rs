//! dlock beside other lock libraries, and beside the least that any client could send for a lock.
//!
//! Starts its own servers. Each row lets its contenders take turns on the same servers; `--help` lists the
//! options, `docs/performance.md` says what each row means.

mod bare;
mod contended;
mod curator;
mod distant;
mod dlock;
#[cfg(feature = "etcd")]
mod etcd;
mod held;
mod leftovers;
mod local;
mod options;
mod redis;
mod redlock;
mod servers;
mod sql;
mod waiting;
mod worker;
mod zookeeper;

use std::process::ExitCode;
use std::time::Instant;

use dlock_benches::machine::Machine;
use dlock_benches::outcome::Measured;
use dlock_benches::report::{self, Report};
use dlock_benches::row::{Goal, Row};
use dlock_tests::servers::installed;

use self::options::Options;

fn main() -> ExitCode {
    if let Some(order) = worker::order() {
        worker::work(order);
        return ExitCode::SUCCESS;
    }
    let options = match Options::from_arguments() {
        Ok(Some(options)) => options,
        Ok(None) => return ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}\n\n{}", options::HELP);
            return ExitCode::FAILURE;
        }
    };
    let rows: Vec<_> = rows().into_iter().filter(|row| options.wants(&row.id)).collect();
    if rows.is_empty() {
        eprintln!("no row has {} in its name; --list shows all", options.filters.join(" or "));
        return ExitCode::FAILURE;
    }
    if options.lists {
        rows.iter().for_each(list);
        return ExitCode::SUCCESS;
    }
    let report = measure(&rows, &options);
    match write(&report, &options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

/// All rows, in the order of the report.
fn rows() -> Vec<Row> {
    #[cfg(feature = "etcd")]
    let etcd = etcd::rows();
    #[cfg(not(feature = "etcd"))]
    let etcd = vec![];
    let alone =
        [redis::rows(), redlock::rows(), sql::rows(), zookeeper::rows(), etcd, local::rows()];
    let others =
        [distant::rows(), contended::rows(), held::rows(), waiting::rows(), leftovers::rows()];
    alone.into_iter().chain(others).flatten().collect()
}

fn list(row: &Row) {
    println!("{:<24} {}", row.id, row.title);
    for goal in &row.goals {
        match goal {
            Goal::Ratio { to, least } => println!("{:<24}   at least {least} x {to}", ""),
            Goal::AtMost { figure, most, unit } => {
                println!("{:<24}   {figure} at most {}", "", unit.show(*most));
            }
        }
    }
}

fn measure(rows: &[Row], options: &Options) -> Report {
    let began = Instant::now();
    let machine = Machine::look();
    println!("{}\n{}", machine.describe(), machine.versions());
    let mut report =
        Report { machine, is_quick: options.plan.is_quick, rows: vec![], left_out: vec![] };
    for row in rows {
        if let Some(missing) = row.needs.iter().find(|program| !installed(program)) {
            report.left_out.push(format!("{}: {missing} is not installed", row.title));
            println!("\n{}: left out, {missing} is not installed", row.title);
            continue;
        }
        // A runtime for each row: nothing of one row runs during the next one.
        let runtime = tokio::runtime::Runtime::new().expect("a runtime");
        let outcome = runtime.block_on(async { tokio::spawn(row.measure(options.plan)).await });
        runtime.shutdown_background();
        match outcome {
            Ok(outcome) => {
                report.rows.push(Measured::new(row, outcome));
                println!("{}", report::show(report.rows.last().expect("it was just added")));
            }
            Err(failure) => {
                report.left_out.push(format!("{}: it failed", row.title));
                println!("\n{}: failed, {failure}", row.title);
            }
        }
    }
    for line in &report.left_out {
        println!("left out: {line}");
    }
    println!("\nin {} s", began.elapsed().as_secs());
    report
}

fn write(report: &Report, options: &Options) -> std::io::Result<()> {
    if let Some(file) = &options.json {
        report.write_json(file)?;
    }
    if let Some(folder) = &options.svg {
        report.draw(folder)?;
    }
    if let Some(file) = &options.document {
        report.write_into(file)?;
    }
    Ok(())
}
