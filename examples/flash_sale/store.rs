//! A plain shared store: one file, a line for every sale, appended in one write.
//!
//! What was sold is what stands in the file; there is no second record that a kill in between could
//! set against it. The file's own lock makes a single call atomic, as any store does for a single
//! call; it does nothing for the time between a look and a sale.
//!
//! With a fencing token a call is refused when the store has seen a larger one, in a look or a sale.

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

/// A write with a token that is older than one the store has seen.
#[derive(Debug, thiserror::Error)]
#[error("the store has seen a later holder than token {token}")]
pub struct Refused {
    token: FencingToken,
}

/// What the file says.
#[derive(Default)]
struct Record {
    sold: u64,
    latest: Option<FencingToken>,
}

impl Store {
    /// Opens or makes the file.
    pub fn open(path: PathBuf, stock: u64) -> io::Result<Self> {
        OpenOptions::new().create(true).append(true).open(&path)?;
        Ok(Self { path, stock })
    }

    /// How many are left to sell.
    pub fn left(&self, token: Option<FencingToken>) -> Result<u64, crate::shop::ShopError> {
        let (mut file, record) = self.locked()?;
        if let Some(token) = token {
            record.admit(token)?;
            writeln!(file, "seen {token}")?;
        }
        Ok(self.stock.saturating_sub(record.sold))
    }

    /// Sells one, whatever is left: to look first is the caller's business.
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
        // One write, so that a kill leaves the whole line or nothing.
        file.write_all(
            format!("sold {token} to customer {customer} by server {server}\n").as_bytes(),
        )?;
        Ok(())
    }

    /// How many were sold in all.
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
