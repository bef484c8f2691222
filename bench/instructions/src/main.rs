//! Runs the benches of this package under Valgrind, and compares what they count with what is committed.
//!
//! Counts do not depend on how busy a machine is, but on what the compiler made of the code: they belong to the pinned
//! toolchain and to `x86_64`. **Invariant:** only `--update` writes the committed file.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};

use anyhow::{Context, bail, ensure};

use baseline::{Baseline, Verdict};

mod baseline;

/// What is committed.
const FILE: &str = "../instructions.json";
/// The only architecture that the committed counts are of.
const ARCHITECTURE: &str = "x86_64";
/// How to accept new counts.
const HOW_TO_UPDATE: &str = "make instructions UPDATE=1";

fn main() -> anyhow::Result<ExitCode> {
    let update = match std::env::args().skip(1).collect::<Vec<_>>().as_slice() {
        [] => false,
        [argument] if argument == "--update" => true,
        other => bail!("unknown arguments {other:?}; --update is the only one"),
    };
    check_machine()?;
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join(FILE);
    let (baseline, toolchain) = (read(&file, update)?, toolchain()?);
    ensure!(
        update || baseline.toolchain == toolchain,
        "{} is of {}, this is {toolchain}: the counts of two compilers cannot be compared. Run `{HOW_TO_UPDATE}`.",
        file.display(),
        baseline.toolchain,
    );
    let counts = count()?;
    let rows = baseline.compare(&counts);
    print!("{}", baseline::table(&rows));
    if update {
        let text = serde_json::to_string_pretty(&baseline.updated(toolchain, &counts))?;
        std::fs::write(&file, text + "\n").with_context(|| format!("failed to write {}", file.display()))?;
        println!("\nwrote {} counts to {}", counts.len(), file.display());
        return Ok(ExitCode::SUCCESS);
    }
    let complaints: Vec<String> = rows.iter().filter_map(baseline::Row::complaint).collect();
    if complaints.is_empty() {
        let better = rows.iter().filter(|row| row.verdict == Verdict::Better).count();
        if better > 0 {
            println!("\n{better} got better by more than their tolerance: `{HOW_TO_UPDATE}` keeps that.");
        }
        return Ok(ExitCode::SUCCESS);
    }
    println!("\n{}\n\nIf it has to be so, run `{HOW_TO_UPDATE}` and say why in the commit.", complaints.join("\n"));
    Ok(ExitCode::FAILURE)
}

/// What has to be there, in words that help.
fn check_machine() -> anyhow::Result<()> {
    let here = std::env::consts::ARCH;
    ensure!(here == ARCHITECTURE, "the committed counts are of {ARCHITECTURE}; this machine is {here}");
    let runs = |program: &str| {
        let mut command = Command::new(program);
        command.arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok()
    };
    ensure!(runs("valgrind"), "valgrind is missing; on Debian: apt-get install valgrind");
    ensure!(runs("gungraun-runner"), "gungraun-runner is missing; `make instructions` installs it");
    Ok(())
}

fn read(file: &Path, update: bool) -> anyhow::Result<Baseline> {
    if update && !file.exists() {
        return Ok(Baseline::default());
    }
    let text = std::fs::read_to_string(file).with_context(|| format!("failed to read {}", file.display()))?;
    serde_json::from_str(&text).with_context(|| format!("failed to understand {}", file.display()))
}

/// `rustc 1.95.0`, without hash and date.
fn toolchain() -> anyhow::Result<String> {
    let output = Command::new("rustc").arg("--version").output().context("failed to run rustc")?;
    let text = String::from_utf8(output.stdout).context("failed to read what rustc says")?;
    Ok(text.split_whitespace().take(2).collect::<Vec<_>>().join(" "))
}

/// Runs all benches. Their JSON comes on standard output, one line each.
fn count() -> anyhow::Result<BTreeMap<String, u64>> {
    let cargo = std::env::var_os("CARGO").map_or_else(|| PathBuf::from("cargo"), PathBuf::from);
    let mut command = Command::new(cargo);
    command.args([
        "bench",
        "--quiet",
        "--package",
        env!("CARGO_PKG_NAME"),
        "--bench",
        "functions",
        "--bench",
        "flows",
        "--",
    ]);
    // Simulated caches would only take time: instructions are all that is compared.
    command.arg("--output-format=json").env("GUNGRAUN_CALLGRIND_ARGS", "cache-sim=no").stderr(Stdio::inherit());
    let output = command.output().context("failed to run cargo")?;
    ensure!(output.status.success(), "the benches ended with {}", output.status);
    let text = String::from_utf8(output.stdout).context("failed to read what the benches say")?;
    let counts: BTreeMap<String, u64> =
        text.lines().filter(|line| line.starts_with('{')).map(baseline::counted).collect::<anyhow::Result<_>>()?;
    ensure!(!counts.is_empty(), "the benches counted nothing");
    Ok(counts)
}
