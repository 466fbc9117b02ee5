//! The command line options.

use std::path::PathBuf;

use anyhow::{Result, anyhow, bail};
use lexopt::prelude::*;

use crate::sale::FEWEST_FOR_A_CRASH;

const HELP: &str = "\
Sells a few items to many customers through several servers at once

Usage: flash_sale [OPTIONS]

Options:
      --backend <URL>          Where the locks live: sqlite:path, redis://host:port/, redis+cluster://…,
                               redis+sentinel://…, redlock://…, memory: (servers then run as threads);
                               postgres://, mysql://, zookeeper:// and etcd:// with the features of these
                               names [default: a SQLite file of its own]
  -S, --stock <STOCK>          Items in stock [default: 50]
  -P, --servers <SERVERS>      Server processes [default: 4]
  -C, --customers <CUSTOMERS>  Customers in total [default: 240]
      --svg <FILE>             Where to write the picture of the timeline [default: target/flash_sale.svg]
      --json                   End with one line of JSON on standard output
  -h, --help                   Print help";

#[derive(Debug)]
pub struct Options {
    pub backend: Option<String>,
    pub stock: u64,
    pub servers: usize,
    pub customers: u32,
    pub svg: PathBuf,
    pub json: bool,
}

impl Options {
    /// Parses the command line. Returns `None` if it asked for the help, which is then printed.
    pub fn from_arguments() -> Result<Option<Self>> {
        // A lexopt error already includes its cause.
        let read = Self::read().map_err(|error| anyhow!("{error}"))?;
        if let Some(options) = &read {
            options.check()?;
        }
        Ok(read)
    }

    fn read() -> Result<Option<Self>, lexopt::Error> {
        let mut options = Self {
            backend: None,
            stock: 50,
            servers: 4,
            // More for each server than there is stock, so that even one alone oversells without the lock.
            customers: 240,
            svg: "target/flash_sale.svg".into(),
            json: false,
        };
        let mut arguments = lexopt::Parser::from_env();
        while let Some(argument) = arguments.next()? {
            match argument {
                Long("backend") => options.backend = Some(arguments.value()?.string()?),
                Short('S') | Long("stock") => options.stock = arguments.value()?.parse()?,
                Short('P') | Long("servers") => options.servers = arguments.value()?.parse()?,
                Short('C') | Long("customers") => options.customers = arguments.value()?.parse()?,
                Long("svg") => options.svg = arguments.value()?.into(),
                Long("json") => options.json = true,
                Short('h') | Long("help") => {
                    println!("{HELP}");
                    return Ok(None);
                }
                _ => return Err(argument.unexpected()),
            }
        }
        Ok(Some(options))
    }

    fn check(&self) -> Result<()> {
        if self.stock == 0 || self.servers == 0 || self.customers == 0 {
            bail!("stock, servers and customers must be at least 1");
        }
        if self.servers > 64 || self.customers > 10_000 {
            bail!("at most 64 servers and 10000 customers: this is an example, not a load test");
        }
        // One server is killed with its customers. The remaining customers must exceed the stock.
        let servers = self.servers.max(FEWEST_FOR_A_CRASH) as u64;
        let left = u64::from(self.customers) * (servers - 1) / servers;
        if left <= self.stock + servers {
            bail!(
                "{} customers are too few for a stock of {}: after one of {servers} servers is killed, more customers than items must remain",
                self.customers,
                self.stock
            );
        }
        Ok(())
    }

    pub fn prepare_picture(&self) -> std::io::Result<()> {
        if let Some(parent) = self.svg.parent() {
            std::fs::create_dir_all(parent)?;
        }
        std::fs::File::create(&self.svg).map(|_| ())
    }
}
