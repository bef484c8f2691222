//! Packs files into an image that a container engine imports, without an engine: the same files give the same bytes.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::json;
use sha2::{Digest, Sha256};

use crate::Error;
use crate::commands::run;

/// Nobody in particular, and not root.
pub const USER: &str = "65532:65532";

const BLOCK: usize = 512;
/// How long a name is that fits into a header.
const NAME_MAX: usize = 100;
const DIRECTORY_MODE: u32 = 0o755;
const LIBRARY_MODE: u32 = 0o755;

/// What an image is made of.
#[derive(Clone, Debug)]
pub struct Image {
    name: String,
    files: BTreeMap<String, (u32, PathBuf)>,
    entry_point: Vec<String>,
    environment: Vec<String>,
    labels: BTreeMap<String, String>,
}

impl Image {
    /// An empty one, of a name with a tag.
    pub fn new(name: &str) -> Self {
        let environment = vec!["PATH=/".to_owned()];
        Self {
            name: name.to_owned(),
            files: BTreeMap::new(),
            entry_point: Vec::new(),
            environment,
            labels: BTreeMap::new(),
        }
    }

    /// Adds a program (or any file) at an absolute path of the image, with the shared libraries that it is linked with.
    pub fn program(mut self, file: &Path, at: &str, mode: u32) -> Result<Self, Error> {
        for library in libraries(file)? {
            let at = library.to_string_lossy().into_owned();
            self.files.insert(inner(&at), (LIBRARY_MODE, library));
        }
        self.files.insert(inner(at), (mode, file.to_owned()));
        Ok(self)
    }

    /// Adds all files below a directory, at the same paths below the root of the image.
    pub fn directory(mut self, root: &Path) -> Result<Self, Error> {
        let mut left = vec![root.to_owned()];
        while let Some(directory) = left.pop() {
            let entries = fs::read_dir(&directory).map_err(Error::io(format!("read {}", directory.display())))?;
            for entry in entries {
                let path = entry.map_err(Error::io(format!("read {}", directory.display())))?.path();
                // Links are followed: what they name may not be in the image.
                let metadata = fs::metadata(&path).map_err(Error::io(format!("read {}", path.display())))?;
                if metadata.is_dir() {
                    left.push(path);
                } else if let Ok(at) = path.strip_prefix(root) {
                    let mode = if metadata.permissions().mode() & 0o111 == 0 { 0o644 } else { 0o755 };
                    self.files.insert(at.to_string_lossy().into_owned(), (mode, path));
                }
            }
        }
        Ok(self)
    }

    /// The one file in the root that can be run, if there is exactly one.
    pub fn only_program(&self) -> Option<String> {
        let mut programs = self.files.iter().filter(|(path, (mode, _))| !path.contains('/') && mode & 0o111 != 0);
        let only = programs.next().map(|(path, _)| format!("/{path}"));
        only.filter(|_| programs.next().is_none())
    }

    /// What is run.
    #[must_use]
    pub fn entry_point(mut self, words: &[&str]) -> Self {
        self.entry_point = words.iter().map(|word| (*word).to_owned()).collect();
        self
    }

    /// Adds an environment variable, as `NAME=value`.
    #[must_use]
    pub fn environment(mut self, variable: &str) -> Self {
        self.environment.push(variable.to_owned());
        self
    }

    /// Adds a label.
    #[must_use]
    pub fn label(mut self, name: &str, value: &str) -> Self {
        self.labels.insert(name.to_owned(), value.to_owned());
        self
    }

    /// Writes the archive that `docker load`, `podman load` and `ctr images import` read.
    pub fn write(&self, archive: &Path) -> Result<(), Error> {
        let layer = self.layer()?;
        let configuration = json!({
            "architecture": if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" },
            "os": "linux",
            "config": {
                "Entrypoint": self.entry_point, "Env": self.environment, "Labels": self.labels, "User": USER, "WorkingDir": "/",
            },
            "rootfs": {"type": "layers", "diff_ids": [format!("sha256:{}", digest(&layer))]},
        });
        let configuration = configuration.to_string().into_bytes();
        let named = format!("{}.json", digest(&configuration));
        let manifest =
            json!([{"Config": named, "RepoTags": [self.name], "Layers": ["layer.tar"]}]).to_string().into_bytes();
        let mut tar = Tar::default();
        tar.add(&named, 0o644, &configuration);
        tar.add("layer.tar", 0o644, &layer);
        tar.add("manifest.json", 0o644, &manifest);
        let attempted = format!("write {}", archive.display());
        let written = fs::File::create(archive).and_then(|mut file| file.write_all(&tar.finish()));
        written.map_err(Error::io(attempted))
    }

    fn layer(&self) -> Result<Vec<u8>, Error> {
        let mut tar = Tar::default();
        let above = |path: &String| path.match_indices('/').map(|(at, _)| path[..at].to_owned()).collect::<Vec<_>>();
        let directories: BTreeSet<String> = self.files.keys().flat_map(above).collect();
        for directory in directories {
            tar.directory(&directory);
        }
        for (path, (mode, file)) in &self.files {
            let content = fs::read(file).map_err(Error::io(format!("read {}", file.display())))?;
            tar.add(path, *mode, &content);
        }
        Ok(tar.finish())
    }
}

/// A path as archives name it.
fn inner(path: &str) -> String {
    path.trim_start_matches('/').to_owned()
}

/// The shared libraries of a program, with the loader; none for one that is linked statically.
fn libraries(program: &Path) -> Result<Vec<PathBuf>, Error> {
    match run(Command::new("ldd").arg(program)) {
        Ok(text) => Ok(text.split_whitespace().filter(|word| word.starts_with('/')).map(PathBuf::from).collect()),
        Err(Error::Command { said, .. }) if said.contains("not a dynamic executable") => Ok(Vec::new()),
        Err(error) => Err(error),
    }
}

fn digest(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().fold(String::new(), |text, byte| text + &format!("{byte:02x}"))
}

/// An archive in the form that all tools read. Owner root, and no times: the same content gives the same bytes.
#[derive(Default)]
struct Tar(Vec<u8>);

impl Tar {
    fn directory(&mut self, path: &str) {
        self.header(&format!("{path}/"), DIRECTORY_MODE, 0, b'5');
    }

    fn add(&mut self, path: &str, mode: u32, content: &[u8]) {
        self.header(path, mode, content.len(), b'0');
        self.0.extend_from_slice(content);
        self.pad();
    }

    fn header(&mut self, path: &str, mode: u32, size: usize, kind: u8) {
        // A longer one is told by an entry before it.
        if path.len() > NAME_MAX {
            self.header("././@LongLink", 0o644, path.len() + 1, b'L');
            self.0.extend_from_slice(path.as_bytes());
            self.0.push(0);
            self.pad();
        }
        let mut header = [0_u8; BLOCK];
        let mut put = |at: usize, bytes: &[u8]| header[at..at + bytes.len()].copy_from_slice(bytes);
        put(0, &path.as_bytes()[..path.len().min(NAME_MAX)]);
        put(100, format!("{mode:07o}\0").as_bytes());
        put(108, b"0000000\0");
        put(116, b"0000000\0");
        put(124, format!("{size:011o}\0").as_bytes());
        put(136, b"00000000000\0");
        put(148, b"        ");
        put(156, &[kind]);
        put(257, b"ustar  \0");
        let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
        header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        self.0.extend_from_slice(&header);
    }

    fn pad(&mut self) {
        self.0.resize(self.0.len().next_multiple_of(BLOCK), 0);
    }

    fn finish(mut self) -> Vec<u8> {
        self.0.resize(self.0.len() + 2 * BLOCK, 0);
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listing(archive: &Path) -> String {
        run(Command::new("tar").arg("-tf").arg(archive)).unwrap()
    }

    #[test]
    fn the_same_files_give_the_same_bytes_whenever_they_were_written() {
        let directory = tempfile::tempdir().unwrap();
        let (root, one, other) =
            (directory.path().join("root"), directory.path().join("1"), directory.path().join("2"));
        let long = "long/".repeat(30);
        fs::create_dir_all(root.join(&long)).unwrap();
        fs::write(root.join(&long).join("file"), "x").unwrap();
        fs::write(root.join("program"), "#!").unwrap();
        let image = || Image::new("localhost/x:1").directory(&root).unwrap().entry_point(&["/program"]).label("a", "b");
        image().write(&one).unwrap();
        fs::remove_file(root.join("program")).unwrap();
        fs::write(root.join("program"), "#!").unwrap();
        image().write(&other).unwrap();
        assert_eq!(fs::read(&one).unwrap(), fs::read(&other).unwrap());
        let names = listing(&one);
        assert!(names.contains("layer.tar") && names.ends_with("manifest.json"), "{names}");
        run(Command::new("tar").arg("-C").arg(directory.path()).arg("-xf").arg(&one).arg("layer.tar")).unwrap();
        let layer = listing(&directory.path().join("layer.tar"));
        assert!(layer.contains(&format!("{long}file")) && layer.contains("long/long/"), "{layer}");
    }

    #[test]
    fn a_program_brings_the_libraries_it_is_linked_with() {
        let shell = fs::canonicalize("/bin/sh").unwrap();
        let image = Image::new("localhost/x:1").program(&shell, "/sh", 0o755).unwrap();
        let names: Vec<_> = image.files.keys().collect();
        assert!(names.iter().any(|name| name.contains("libc.so")), "{names:?}");
        assert!(names.contains(&&"sh".to_owned()), "{names:?}");
    }
}
