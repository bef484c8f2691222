//! Files that a reader sees whole or not at all.

use std::io;
use std::path::Path;

/// Writes a file so that a reader sees all of it or nothing.
pub fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".new");
    let new = path.with_file_name(name);
    std::fs::write(&new, bytes)?;
    std::fs::rename(&new, path)
}
