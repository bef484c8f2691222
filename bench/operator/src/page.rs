//! The page of the documentation.

use std::path::Path;

use crate::results::Results;

/// Writes the page and its picture into the directory of the documentation.
pub(crate) fn write(_results: &Results, _docs: &Path) -> anyhow::Result<()> {
    Ok(())
}
