//! The command line.

use std::path::PathBuf;
use std::time::Duration;

use dlock_benches::row::Plan;
use lexopt::prelude::*;

pub const HELP: &str = "\
usage: cargo bench -p dlock-benches --features etcd --bench peers -- [options] [row...]

  row               measure only rows whose name has this in it
  --list            show the rows and their targets
  --quick           fewer rounds and keys, under three minutes
  --hold SECONDS    how long leases are held (30 by default, 11 with --quick)
  --full-leftovers  lock a million keys each for what is left in the stores
  --json FILE       write everything as JSON
  --svg DIRECTORY   draw the charts
  --docs FILE       replace the table in docs/performance.md";

/// What was asked for.
#[derive(Debug)]
pub struct Options {
    pub plan: Plan,
    pub filters: Vec<String>,
    pub lists: bool,
    pub json: Option<PathBuf>,
    pub svg: Option<PathBuf>,
    pub document: Option<PathBuf>,
}

impl Options {
    /// Reads the command line. Nothing if there is nothing to do.
    pub fn from_arguments() -> Result<Option<Self>, lexopt::Error> {
        let mut options = Self {
            plan: Plan {
                rounds: 7,
                slice: Duration::from_millis(500),
                is_quick: false,
                window: Duration::ZERO,
                all_leftovers: false,
            },
            filters: vec![],
            lists: false,
            json: None,
            svg: None,
            document: None,
        };
        let mut parser = lexopt::Parser::from_env();
        while let Some(argument) = parser.next()? {
            match argument {
                Long("quick") => options.plan.is_quick = true,
                Long("hold") => {
                    options.plan.window = Duration::from_secs(parser.value()?.parse()?);
                }
                Long("full-leftovers") => options.plan.all_leftovers = true,
                Long("list") => options.lists = true,
                Long("json") => options.json = Some(parser.value()?.into()),
                Long("svg") => options.svg = Some(parser.value()?.into()),
                Long("docs") => options.document = Some(parser.value()?.into()),
                Short('h') | Long("help") => {
                    println!("{HELP}");
                    return Ok(None);
                }
                // What cargo passes to every benchmark.
                Long("bench") => {}
                Value(row) => options.filters.push(row.string()?),
                other => return Err(other.unexpected()),
            }
        }
        options.settle();
        Ok(Some(options))
    }

    fn settle(&mut self) {
        let plan = &mut self.plan;
        if plan.is_quick {
            (plan.rounds, plan.slice) = (3, Duration::from_millis(150));
        }
        if plan.window.is_zero() {
            plan.window = Duration::from_secs(if plan.is_quick { 11 } else { 30 });
        }
        // Cargo runs a benchmark in the folder of its package, but people name files from where they are.
        if let Some(root) = std::env::var_os("CARGO_MANIFEST_DIR").map(PathBuf::from) {
            for path in [&mut self.json, &mut self.svg, &mut self.document].into_iter().flatten() {
                *path = root.join("..").join(&*path);
            }
        }
    }

    /// Whether this row is to be measured.
    pub fn wants(&self, row: &str) -> bool {
        self.filters.is_empty() || self.filters.iter().any(|filter| row.contains(filter))
    }
}
