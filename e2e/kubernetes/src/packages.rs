//! What a node needs of the operating system.

use std::path::Path;

use crate::Error;

/// Programs, and the Debian packages that have them.
const NEEDED: [(&str, &str); 12] = [
    ("conntrack", "conntrack"),
    ("containerd", "containerd"),
    ("containerd-shim-runc-v2", "containerd"),
    ("ctr", "containerd"),
    ("ethtool", "ethtool"),
    ("ip", "iproute2"),
    ("iptables", "iptables"),
    ("mount", "mount"),
    ("nsenter", "util-linux"),
    ("runc", "runc"),
    ("socat", "socat"),
    ("umount", "mount"),
];
/// Where Debian puts plug-ins for the network of containers, and one that is used.
const PLUGIN: (&str, &str) = ("/usr/lib/cni/bridge", "containernetworking-plugins");
/// The directories of the programs that the system administers itself with.
const SYSTEM_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The `PATH` of processes of a node.
pub(crate) fn path() -> String {
    let given = std::env::var("PATH").unwrap_or_default();
    format!("{given}:{SYSTEM_PATH}")
}

/// An error that names all that is missing, and what to install.
pub(crate) fn check() -> Result<(), Error> {
    missing(&path(), Path::new(PLUGIN.0))
}

fn missing(path: &str, plugin: &Path) -> Result<(), Error> {
    let there = |program: &str| std::env::split_paths(path).any(|directory| directory.join(program).is_file());
    let mut absent: Vec<_> = NEEDED.into_iter().filter(|(program, _)| !there(program)).collect();
    if !plugin.is_file() {
        absent.push(PLUGIN);
    }
    if absent.is_empty() {
        return Ok(());
    }
    let programs = absent.iter().map(|(program, _)| *program).collect();
    let mut packages: Vec<_> = absent.iter().map(|(_, package)| *package).collect();
    packages.sort_unstable();
    packages.dedup();
    Err(Error::Packages { programs, packages })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_is_named_with_the_command_that_installs_it() {
        let empty = tempfile::tempdir().unwrap();
        std::fs::write(empty.path().join("ip"), "").unwrap();
        let error = missing(&empty.path().to_string_lossy(), &empty.path().join("bridge")).unwrap_err();
        let text = error.to_string();
        assert!(error.is_missing_tool());
        assert!(text.contains("ctr, ethtool, iptables"), "{text}");
        let all = "conntrack containerd containernetworking-plugins ethtool iptables mount runc socat util-linux";
        assert!(text.ends_with(&format!("apt-get install --no-install-recommends {all}")), "{text}");
    }
}
