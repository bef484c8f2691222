//! `tandem status`: the runtime of a namespace and everything that it serves, as one tree.
//!
//! [`gather`] asks the cluster and the pods, [`view`] makes a model of what they say, [`text`] draws it. Only the first of
//! them does anything but to compute.

mod gather;
mod text;
mod tree;
mod view;

use crate::Exit;
use crate::cluster::{self, Cluster};
use crate::output::{Format, Palette, print, print_error, print_json};

/// Show what runs in a namespace of a cluster, and how it is.
///
/// A tree: the runtime with its pods and the revision that each serves, functions with their revisions, workers and calls,
/// routes and egresses; each with the reason where something is wrong. Calls are counted since the pods were started.
///
/// Ends with 0 if everything is ready, with 1 if something is not or nothing is there, and with 2 if the cluster cannot be asked.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  kubectl tandem status -n shop\n  kubectl tandem status order -n shop -o json\n  \
                        tandem status --context staging -n shop")]
pub(crate) struct Arguments {
    /// Only what has this name, and what belongs to it.
    name: Option<String>,
    /// How to print it.
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
    #[command(flatten)]
    pub(crate) cluster: cluster::Options,
}

/// Runs the command.
pub(crate) async fn run(arguments: &Arguments) -> Result<Exit, cluster::Error> {
    let cluster = Cluster::connect(&arguments.cluster).await?;
    let gathered = gather::gather(&cluster).await?;
    let mut view = view::view(&gathered);
    if let Some(name) = &arguments.name {
        view = view.only(name);
    }
    if view.is_empty() {
        let name = arguments.name.as_deref().map(|name| format!(" with the name {name}")).unwrap_or_default();
        match arguments.output {
            Format::Json => print_json(&view),
            Format::Text => print_error(&format!(
                "namespace {} has nothing of tandem.dev{name}; name another namespace by -n",
                cluster.namespace
            )),
        }
        return Ok(Exit::Negative);
    }
    match arguments.output {
        Format::Json => print_json(&view),
        Format::Text => print(&text::text(&view, Palette::of_stdout())),
    }
    Ok(if view.ready { Exit::Ok } else { Exit::Negative })
}
