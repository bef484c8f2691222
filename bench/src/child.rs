//! A process of our own program that serves: it lives as long as the value that stands for it.

use std::io::{BufRead, BufReader, Write};
use std::process::{ChildStdin, ChildStdout, Command, Stdio};

use anyhow::Context;

use crate::serve::{Counted, Ready};

/// A running process.
#[derive(Debug)]
pub(crate) struct Child {
    process: std::process::Child,
    questions: ChildStdin,
    answers: BufReader<ChildStdout>,
    address: String,
}

impl Child {
    /// Starts this program with `arguments`, and waits until it is ready.
    pub(crate) fn start(arguments: &[&str]) -> anyhow::Result<Self> {
        let mut process = Command::new(std::env::current_exe()?)
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("failed to start a process")?;
        let questions = process.stdin.take().context("no input")?;
        let answers = BufReader::new(process.stdout.take().context("no output")?);
        let mut child = Self { process, questions, answers, address: String::new() };
        let ready: Ready = child.read().with_context(|| format!("{} did not start", arguments.join(" ")))?;
        child.address = ready.address;
        Ok(child)
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> &str {
        &self.address
    }

    /// Its process id.
    pub(crate) fn id(&self) -> u32 {
        self.process.id()
    }

    /// What it has counted.
    pub(crate) fn counted(&mut self) -> anyhow::Result<Counted> {
        writeln!(self.questions, "counted")?;
        self.questions.flush()?;
        self.read()
    }

    /// Ends it at once, not asked: what was acknowledged has to be there all the same.
    pub(crate) fn kill(&mut self) {
        // It may have ended by itself.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }

    fn read<T: serde::de::DeserializeOwned>(&mut self) -> anyhow::Result<T> {
        let mut line = String::new();
        self.answers.read_line(&mut line)?;
        serde_json::from_str(&line).with_context(|| format!("it said {line:?}"))
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        self.kill();
    }
}
