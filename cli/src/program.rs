//! Under which name this program was started: `tandem`, or `kubectl tandem`.
//!
//! `kubectl` runs the first program called `kubectl-tandem` in the path. That is a link to this one: what it does is the
//! same, and what it asks without being told whom is the cluster.

use std::path::Path;

/// What a plug-in of `kubectl` has to be called.
const PLUGIN_FILE: &str = "kubectl-tandem";
/// What the program has to be called that `kubectl` asks how a command line of the plug-in could go on.
const COMPLETION_FILE: &str = "kubectl_complete-tandem";

/// The name that the user typed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Program {
    /// `tandem`
    Tandem,
    /// `kubectl tandem`
    Plugin,
    /// `kubectl tandem`, of which not everything is typed yet.
    PluginCompletion,
}

impl Program {
    /// How this process was started.
    pub(crate) fn current() -> Self {
        std::env::args_os().next().map_or(Self::Tandem, |first| Self::started_as(Path::new(&first)))
    }

    fn started_as(path: &Path) -> Self {
        match path.file_stem().and_then(|name| name.to_str()) {
            Some(PLUGIN_FILE) => Self::Plugin,
            Some(COMPLETION_FILE) => Self::PluginCompletion,
            _ => Self::Tandem,
        }
    }

    /// How it is called in what is printed.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Tandem => "tandem",
            Self::Plugin | Self::PluginCompletion => "kubectl tandem",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_of_the_file_says_who_calls() {
        for plugin in ["kubectl-tandem", "/usr/local/bin/kubectl-tandem", "bin/kubectl-tandem.exe"] {
            assert_eq!(Program::started_as(Path::new(plugin)), Program::Plugin, "{plugin}");
        }
        assert_eq!(Program::started_as(Path::new("/bin/kubectl_complete-tandem")), Program::PluginCompletion);
        for other in ["tandem", "/usr/bin/tandem", "kubectl", "kubectl-tandem-x", ""] {
            assert_eq!(Program::started_as(Path::new(other)), Program::Tandem, "{other}");
        }
    }
}
