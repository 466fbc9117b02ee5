//! A file that is complete at any time.

use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

/// A file that is replaced as a whole.
pub struct PageFile {
    path: PathBuf,
    new: PathBuf,
}

impl PageFile {
    /// Fails if the file cannot be written. Nothing is changed yet.
    pub fn prepare(path: &Path) -> io::Result<Self> {
        // What a link names is replaced, and not the link.
        let path = path.canonicalize().unwrap_or_else(|_| path.to_owned());
        if path.exists() && !path.is_file() {
            return Err(io::Error::other("it is not a regular file"));
        }
        let Some(name) = path.file_name() else { return Err(io::Error::other("it has no name")) };
        let mut new = std::ffi::OsString::from(".");
        new.push(name);
        new.push(format!(".{}.new", std::process::id()));
        let new = path.with_file_name(new);
        let file = Self { path, new };
        fs::File::create(&file.new)?;
        fs::remove_file(&file.new)?;
        Ok(file)
    }

    pub fn replace(&self, text: &str) -> io::Result<()> {
        let written = self.write(text);
        if written.is_err() {
            let _ = fs::remove_file(&self.new);
        }
        written
    }

    fn write(&self, text: &str) -> io::Result<()> {
        let mut new = fs::File::create(&self.new)?;
        new.write_all(text.as_bytes())?;
        drop(new);
        fs::rename(&self.new, &self.path)
    }
}
