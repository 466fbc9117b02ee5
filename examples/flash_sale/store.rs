//! A simple shared store: one file with one line per sale, appended in a single write.
//!
//! The file is the only record of what was sold, so a kill at any point cannot make two records
//! disagree. The file's own lock makes a single call atomic, as in any store. It does not protect
//! the time between a read and a sale.
//!
//! A call with a fencing token is rejected if the store has seen a larger one, in a read or a sale.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::PathBuf;

use dlock_runtime::FencingToken;

/// The item's sales so far.
#[derive(Clone, Debug)]
pub struct Store {
    path: PathBuf,
    stock: u64,
}

/// A call with a token that is older than one the store has seen.
#[derive(Debug, thiserror::Error)]
#[error("the store has seen a later holder than token {token}")]
pub struct Refused {
    token: FencingToken,
}

/// The contents of the file.
#[derive(Default)]
struct Record {
    sold: u64,
    latest: Option<FencingToken>,
}

impl Store {
    /// Opens or creates the file.
    pub fn open(path: PathBuf, stock: u64) -> io::Result<Self> {
        OpenOptions::new().create(true).append(true).open(&path)?;
        Ok(Self { path, stock })
    }

    /// Returns how many items are left.
    pub fn left(&self, token: Option<FencingToken>) -> Result<u64, crate::shop::ShopError> {
        let (mut file, record) = self.locked()?;
        if let Some(token) = token {
            record.admit(token)?;
            writeln!(file, "seen {token}")?;
        }
        Ok(self.stock.saturating_sub(record.sold))
    }

    /// Sells one item without checking the stock; that is up to the caller.
    pub fn sell(
        &self,
        server: usize,
        customer: u32,
        token: Option<FencingToken>,
    ) -> Result<(), crate::shop::ShopError> {
        let (mut file, record) = self.locked()?;
        let token = match token {
            Some(token) => {
                record.admit(token)?;
                token.to_string()
            }
            None => "-".to_owned(),
        };
        // A single write, so that a kill leaves either the whole line or nothing.
        file.write_all(
            format!("sold {token} to customer {customer} by server {server}\n").as_bytes(),
        )?;
        Ok(())
    }

    /// Returns how many items were sold in total.
    pub fn sold(&self) -> io::Result<u64> {
        Ok(self.locked()?.1.sold)
    }

    fn locked(&self) -> io::Result<(File, Record)> {
        let mut file = OpenOptions::new().read(true).append(true).open(&self.path)?;
        file.lock()?;
        let mut text = String::new();
        file.read_to_string(&mut text)?;
        Ok((file, Record::read(&text)))
    }
}

impl Record {
    fn read(text: &str) -> Self {
        let mut record = Self::default();
        for line in text.split_inclusive('\n').filter(|line| line.ends_with('\n')) {
            let mut words = line.split_whitespace();
            if words.next() == Some("sold") {
                record.sold += 1;
            }
            let token = words.next().and_then(|word| word.parse().ok()).map(FencingToken::new);
            record.latest = record.latest.max(token);
        }
        record
    }

    fn admit(&self, token: FencingToken) -> Result<(), Refused> {
        if self.latest > Some(token) { Err(Refused { token }) } else { Ok(()) }
    }
}
