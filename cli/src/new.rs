//! `tandem new`: the files of a new function, ready to run with `tandem dev`.

use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context as _;
use clap::ValueEnum;
use tandem_model::ids::FunctionName;
use tandem_model::limits::NAME_BYTES_MAX;

/// The files are there already, or cannot be written.
const EXIT_REFUSED: u8 = 1;
/// The command line is wrong.
const EXIT_USAGE: u8 = 2;
/// What a route's name adds to the function's.
const LONGEST_ROUTE_SUFFIX: &str = "-add";
/// First segments of paths that the runtime answers itself.
const RESERVED_SEGMENTS: [&str; 2] = ["flows", "egress"];
/// Where a Rust function gets the SDK from, unless it is told.
const SDK_DEPENDENCY: &str = "git = \"https://github.com/tandem-dev/tandem\"";

/// Makes a new function: code, resources and what `tandem dev` needs to run it.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example: tandem new greeter && tandem dev greeter")]
pub(crate) struct Arguments {
    /// Name of the function: 1 to 63 of a-z, 0-9 and '-'.
    name: String,
    /// Where to put it; a directory of its name otherwise.
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// What it is written in.
    #[arg(long, value_enum, default_value_t = Language::Rust)]
    lang: Language,
    /// A local copy of the Rust SDK (sdk/rust of the repository), instead of the published one.
    #[arg(long, value_name = "DIR")]
    sdk: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Language {
    /// A crate with the SDK.
    Rust,
    /// Python's standard library and the HTTP profile.
    PythonHttp,
}

impl Language {
    /// Names and templates of its files.
    fn files(self) -> &'static [(&'static str, &'static str)] {
        match self {
            Self::Rust => &[
                ("Cargo.toml", include_str!("new/rust/Cargo.toml.template")),
                ("src/main.rs", include_str!("new/rust/main.rs.template")),
                ("function.yaml", include_str!("new/rust/function.yaml")),
                ("route.yaml", include_str!("new/route.yaml")),
                ("Tandemfile", include_str!("new/rust/Tandemfile")),
            ],
            Self::PythonHttp => &[
                ("main.py", include_str!("new/python/main.py")),
                ("function.yaml", include_str!("new/python/function.yaml")),
                ("route.yaml", include_str!("new/route.yaml")),
                ("Tandemfile", include_str!("new/python/Tandemfile")),
            ],
        }
    }
}

/// Runs the command.
pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let name: FunctionName = match arguments.name.parse() {
        Ok(name) => name,
        Err(error) => return refused(EXIT_USAGE, &error.to_string()),
    };
    if name.as_str().len() > NAME_BYTES_MAX - LONGEST_ROUTE_SUFFIX.len() {
        return refused(EXIT_USAGE, "the name is too long: its routes are named after it");
    }
    let directory = arguments.dir.clone().unwrap_or_else(|| PathBuf::from(name.as_str()));
    match create(&name, &directory, arguments.lang, arguments.sdk.as_deref()) {
        Ok(created) => {
            let mut out = io::stdout().lock();
            for path in created {
                writeln!(out, "created {}", path.display())?;
            }
            writeln!(out, "run it with: tandem dev {}", directory.display())?;
            Ok(ExitCode::SUCCESS)
        }
        Err(error) => refused(EXIT_REFUSED, &format!("{error:#}")),
    }
}

fn refused(code: u8, message: &str) -> anyhow::Result<ExitCode> {
    writeln!(io::stderr(), "error: {message}")?;
    Ok(ExitCode::from(code))
}

/// Writes the files. Nothing is written if one of them is there.
fn create(
    name: &FunctionName,
    directory: &Path,
    language: Language,
    sdk: Option<&Path>,
) -> anyhow::Result<Vec<PathBuf>> {
    let paths: Vec<PathBuf> = language.files().iter().map(|(file, _)| directory.join(file)).collect();
    if let Some(existing) = paths.iter().find(|path| path.exists()) {
        anyhow::bail!("{} exists; nothing was written", existing.display());
    }
    let sdk = match sdk {
        Some(path) => {
            let path = path.canonicalize().with_context(|| format!("failed to find the SDK at {}", path.display()))?;
            format!("path = {:?}", path.display().to_string())
        }
        None => SDK_DEPENDENCY.to_owned(),
    };
    for (path, (_, template)) in paths.iter().zip(language.files()) {
        write_new(path, &fill(template, name, &sdk)).with_context(|| format!("failed to write {}", path.display()))?;
    }
    Ok(paths)
}

fn write_new(path: &Path, text: &str) -> io::Result<()> {
    if let Some(parent) = path.parent() {
        std::fs::create_dir_all(parent)?;
    }
    // Not `write`: a file that appeared in the meantime is not ours either.
    std::fs::File::create_new(path)?.write_all(text.as_bytes())
}

fn fill(template: &str, name: &FunctionName, sdk: &str) -> String {
    template
        .replace("{{name}}", name.as_str())
        .replace("{{yaml}}", &yaml_text(name))
        .replace("{{segment}}", &path_segment(name))
        .replace("{{package}}", &package_name(name))
        .replace("{{Type}}", &type_name(name))
        .replace("{{sdk}}", sdk)
}

/// The name as a YAML text: quoted where YAML would see a number or a word of its own.
fn yaml_text(name: &FunctionName) -> String {
    const WORDS: [&str; 9] = ["true", "false", "null", "yes", "no", "on", "off", "y", "n"];
    let starts_as_number = name.as_str().starts_with(|c: char| c.is_ascii_digit());
    if starts_as_number || WORDS.contains(&name.as_str()) { format!("\"{name}\"") } else { name.to_string() }
}

/// The first segment of the paths of its routes.
fn path_segment(name: &FunctionName) -> String {
    if RESERVED_SEGMENTS.contains(&name.as_str()) { format!("fn-{name}") } else { name.to_string() }
}

/// A name that Cargo takes: it must not start with a digit.
fn package_name(name: &FunctionName) -> String {
    if name.as_str().starts_with(|c: char| c.is_ascii_digit()) { format!("fn-{name}") } else { name.to_string() }
}

/// `place-order` as a Rust type: `PlaceOrder`.
fn type_name(name: &FunctionName) -> String {
    let words = package_name(name);
    words.split('-').filter(|word| !word.is_empty()).fold(String::new(), |mut type_name, word| {
        let (first, rest) = word.split_at(1);
        type_name.push_str(&first.to_ascii_uppercase());
        type_name.push_str(rest);
        type_name
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_become_types_and_packages() {
        let check = |name: &str, package: &str, type_name_expected: &str| {
            let name: FunctionName = name.parse().unwrap();
            assert_eq!(package_name(&name), package);
            assert_eq!(type_name(&name), type_name_expected);
        };
        check("order", "order", "Order");
        check("place-order", "place-order", "PlaceOrder");
        check("a--b", "a--b", "AB");
        check("2go", "fn-2go", "Fn2go");
    }
}
