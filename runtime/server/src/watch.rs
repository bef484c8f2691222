//! Notices that the files of the application have changed, by looking at them now and then.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

/// How often the files are looked at.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// How deep directories are looked into; deeper ones are not read as resources either.
const DEPTH_MAX: usize = 8;

/// Name, time and size of each file that matters.
type Fingerprint = BTreeMap<PathBuf, (Option<SystemTime>, u64)>;

/// Watches files, and directories.
pub struct Watch {
    paths: Vec<PathBuf>,
    known: Fingerprint,
}

impl Watch {
    /// Begins with the files as they are now.
    pub fn new(paths: &[PathBuf]) -> Self {
        Self { paths: paths.to_vec(), known: fingerprint(paths) }
    }

    /// Returns when something has changed and was left alone for one look, so that a file that is being written is not
    /// read half. Dropping it loses no change.
    pub async fn changed(&mut self) {
        let mut last = self.known.clone();
        loop {
            tokio::time::sleep(LOOK_EVERY).await;
            let now = fingerprint(&self.paths);
            if now != self.known && now == last {
                self.known = now;
                return;
            }
            last = now;
        }
    }
}

fn fingerprint(paths: &[PathBuf]) -> Fingerprint {
    let mut files = Fingerprint::new();
    for path in paths {
        // A file that was named is watched whatever it is called.
        match std::fs::metadata(path) {
            Ok(metadata) if !metadata.is_dir() => {
                files.insert(path.clone(), (metadata.modified().ok(), metadata.len()));
            }
            _ => collect(path, 1, &mut files),
        }
    }
    files
}

/// Files that cannot be looked at count as absent; reading them says why.
fn collect(directory: &Path, depth: usize, files: &mut Fingerprint) {
    let Ok(entries) = std::fs::read_dir(directory) else { return };
    for entry in entries.flatten() {
        let path = entry.path();
        if entry.file_name().to_string_lossy().starts_with('.') {
            continue;
        }
        let Ok(metadata) = std::fs::metadata(&path) else { continue };
        if metadata.is_dir() && depth < DEPTH_MAX {
            collect(&path, depth + 1, files);
        } else if path.extension().is_some_and(|extension| extension == "yaml" || extension == "yml") {
            files.insert(path, (metadata.modified().ok(), metadata.len()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn change_is_noticed_once() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("a.yaml"), "a").unwrap();
        let mut watch = Watch::new(&[directory.path().to_owned()]);
        std::fs::write(directory.path().join("b.yaml"), "new").unwrap();
        std::fs::write(directory.path().join("ignored.txt"), "new").unwrap();
        watch.changed().await;
        let quiet = tokio::time::timeout(LOOK_EVERY * 5, watch.changed()).await;
        assert!(quiet.is_err(), "a change was reported twice");
        std::fs::remove_file(directory.path().join("a.yaml")).unwrap();
        watch.changed().await;
    }
}
