//! `tandem-cluster`: brings a Kubernetes node up, and takes it down.

use std::fmt::Write as _;
use std::io::Write;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command as Program, ExitCode};

use clap::{Parser, Subcommand, ValueEnum};
use tandem_e2e_kubernetes::binaries::{Binaries, builder};
use tandem_e2e_kubernetes::cluster::{self, Cluster, Options, Status};
use tandem_e2e_kubernetes::image::Image;
use tandem_e2e_kubernetes::{Error, place};

const AFTER_HELP: &str = "A node is made of processes of this machine in a network namespace of its own; it needs root, Go and some Debian \
packages, and names what is missing.\n\nExit codes: 0 as asked; 1 not so (it failed, or nothing runs); 2 wrong arguments.";

/// A real Kubernetes node on this machine.
#[derive(Debug, Parser)]
#[command(name = "tandem-cluster", version, about, after_help = AFTER_HELP)]
struct Arguments {
    /// Name of the cluster: several can run at once.
    #[arg(long, global = true, default_value = "dev")]
    name: String,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Builds Kubernetes, etcd, CoreDNS and Helm if they never were, and prints where they are.
    Build,
    /// Starts a cluster in the background.
    Up(Up),
    /// Ends it and removes its data, also what is left of a broken one. Logs stay.
    Down,
    /// Says what runs.
    Status(Show),
    /// Prints the path of the administrator's kubeconfig.
    Kubeconfig,
    /// Imports images of an archive (of `pack`, `docker save` or `podman save`) into the node.
    Load {
        /// The archives.
        #[arg(required = true)]
        archives: Vec<PathBuf>,
    },
    /// Packs a directory of files into an image archive, without a container engine.
    Pack(Pack),
    /// Runs kubectl as administrator.
    #[command(disable_help_flag = true)]
    Kubectl {
        /// Passed on.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
    /// Runs helm as administrator.
    #[command(disable_help_flag = true)]
    Helm {
        /// Passed on.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
}

#[derive(Debug, clap::Args)]
struct Up {
    /// Where logs, certificates and data are; `.tandem/kubernetes/NAME` if not said.
    #[arg(long)]
    directory: Option<PathBuf>,
    /// How many volumes are laid out for claims.
    #[arg(long, default_value_t = 32)]
    volumes: u16,
    /// How many test stores that speak TiKV's protocol run beside the node, with a PD.
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u8).range(0..=16))]
    stores: u8,
    #[command(flatten)]
    show: Show,
}

#[derive(Debug, clap::Args)]
struct Show {
    /// Form of the answer.
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
}

#[derive(Debug, clap::Args)]
struct Pack {
    /// All files below it are in the image, at the same paths.
    root: PathBuf,
    /// Name and tag, such as localhost/shop:dev.
    #[arg(long)]
    image: String,
    /// What is run; by default, the only file in the root that can be run.
    #[arg(long)]
    entry_point: Option<String>,
    /// Environment variables, as NAME=value.
    #[arg(long)]
    environment: Vec<String>,
    /// Labels, as name=value.
    #[arg(long)]
    label: Vec<String>,
    /// The archive.
    #[arg(short, long)]
    output: PathBuf,
}

#[derive(Clone, Copy, Debug, Default, ValueEnum)]
enum Format {
    /// For people.
    #[default]
    Text,
    /// For programs.
    Json,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match run(&arguments) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            complain(&chain(&error));
            ExitCode::FAILURE
        }
    }
}

type Done = Result<bool, Error>;

fn run(arguments: &Arguments) -> Done {
    let name = &arguments.name;
    match &arguments.command {
        Command::Build => build(),
        Command::Up(up) => bring_up(name, up),
        Command::Down => take_down(name),
        Command::Status(show) => tell(name, show),
        Command::Kubeconfig => {
            print(&Cluster::find(name)?.place.kubeconfig().display().to_string());
            Ok(true)
        }
        Command::Load { archives } => {
            let cluster = Cluster::find(name)?;
            for archive in archives {
                print(&cluster.load(archive)?);
            }
            Ok(true)
        }
        Command::Pack(pack) => pack_image(pack),
        Command::Kubectl { arguments } => become_program(Cluster::find(name)?.kubectl().args(arguments)),
        Command::Helm { arguments } => become_program(Cluster::find(name)?.helm().args(arguments)),
    }
}

fn become_program(program: &mut Program) -> Done {
    // Returns only if it could not be done.
    let source = program.exec();
    Err(Error::Io { attempted: format!("run {}", program.get_program().display()), source })
}

fn build() -> Done {
    let binaries = Binaries::built_by(&builder())?;
    for name in Binaries::names() {
        print(&binaries.program(name).display().to_string());
    }
    Ok(true)
}

fn bring_up(name: &str, up: &Up) -> Done {
    let directory = up.directory.clone().unwrap_or_else(|| PathBuf::from(".tandem/kubernetes").join(name));
    let options = Options { name: name.to_owned(), directory, volumes: up.volumes, stores: up.stores };
    let progress = |step: &str| complain_plainly(&format!("{step} ..."));
    let status = Cluster::up(&options, &builder(), &progress)?.status();
    show(&status, up.show.output);
    if matches!(up.show.output, Format::Text) {
        print(&next(&status));
    }
    Ok(true)
}

fn take_down(name: &str) -> Done {
    let place = place::Place::find(name)?;
    let ended = cluster::down(name)?;
    let logs =
        place.map_or_else(String::new, |place| format!("; logs stay in {}", place.directory.join("log").display()));
    print(&if ended { format!("{name} is down{logs}") } else { format!("there is no cluster {name}") });
    Ok(true)
}

fn tell(name: &str, wanted: &Show) -> Done {
    let Some(status) = cluster::status(name)? else {
        let others: Vec<String> = place::all()?.into_iter().map(|place| place.name).collect();
        let others = if others.is_empty() { String::new() } else { format!(" (there are: {})", others.join(", ")) };
        complain(&format!("{}{others}", Error::NoCluster(name.to_owned())));
        return Ok(false);
    };
    show(&status, wanted.output);
    Ok(status.is_up())
}

fn pack_image(pack: &Pack) -> Done {
    let mut image = Image::new(&pack.image).directory(&pack.root)?;
    let entry_point = pack.entry_point.clone().or_else(|| image.only_program());
    let Some(entry_point) = entry_point else {
        complain("there is not exactly one program in the root: say what is run with --entry-point");
        return Ok(false);
    };
    image = image.entry_point(&[&entry_point]);
    for variable in &pack.environment {
        image = image.environment(variable);
    }
    for label in &pack.label {
        let (name, value) = label.split_once('=').unwrap_or((label, ""));
        image = image.label(name, value);
    }
    image.write(&pack.output)?;
    Ok(true)
}

fn show(status: &Status, format: Format) {
    let text = match format {
        Format::Json => serde_json::to_string_pretty(status).unwrap_or_else(|error| error.to_string()),
        Format::Text => {
            let mut text = format!("{} at {}\n", status.place.name, status.server);
            for process in &status.processes {
                let _ = writeln!(text, "{:<24} process {}", process.name, process.id);
            }
            for endpoint in &status.pd_endpoints {
                let _ = writeln!(text, "{:<24} {endpoint}", "PD");
            }
            let _ = write!(text, "{:<24} {} processes", "pods", status.contained);
            text
        }
    };
    print(&text);
}

fn next(status: &Status) -> String {
    let name = &status.place.name;
    let named = if name == "dev" { String::new() } else { format!(" --name {name}") };
    format!(
        "\nnext:\n  export KUBECONFIG={}\n  tandem-cluster{named} kubectl get pods -A\n  tandem-cluster{named} down",
        status.kubeconfig.display()
    )
}

fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let _ = write!(text, ": {cause}");
        source = cause.source();
    }
    text
}

fn print(text: &str) {
    // Nobody is left to be told.
    let _ = writeln!(std::io::stdout(), "{text}");
}

fn complain(text: &str) {
    complain_plainly(&format!("error: {text}"));
}

fn complain_plainly(text: &str) {
    let _ = writeln!(std::io::stderr(), "{text}");
}
