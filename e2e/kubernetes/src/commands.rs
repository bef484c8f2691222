//! Other programs, run to their end: what they said becomes part of the error.

use std::io::Write;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::Error;

/// How often something is asked again that is waited for.
const ASK_EVERY: Duration = Duration::from_millis(200);

/// Runs it to its end, and returns what it printed.
pub(crate) fn run(command: &mut Command) -> Result<String, Error> {
    let attempted = describe(command);
    let output = command.stdin(Stdio::null()).output().map_err(Error::io(&attempted))?;
    finish(attempted, &output)
}

/// The same for a program that reads.
pub(crate) fn run_with_input(command: &mut Command, input: &[u8]) -> Result<String, Error> {
    let attempted = describe(command);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().map_err(Error::io(&attempted))?;
    if let Some(mut pipe) = child.stdin.take() {
        // If it does not want to hear more, it says why.
        let _ = pipe.write_all(input);
    }
    let output = child.wait_with_output().map_err(Error::io(&attempted))?;
    finish(attempted, &output)
}

fn finish(attempted: String, output: &std::process::Output) -> Result<String, Error> {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
    if output.status.success() {
        return Ok(text(&output.stdout));
    }
    let said = text(&output.stderr);
    let said = if said.is_empty() { output.status.to_string() } else { said };
    Err(Error::Command { attempted, said })
}

fn describe(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    let words: Vec<_> = words.map(|word| word.to_string_lossy()).collect();
    format!("run {}", words.join(" "))
}

/// Asks until the answer is yes. `look` is asked before each: an error of it ends the wait.
pub(crate) fn await_ok<T>(
    what: &str,
    longest: Duration,
    mut ask: impl FnMut() -> Result<T, Error>,
    look: impl Fn() -> Result<(), Error>,
) -> Result<T, Error> {
    let begun = Instant::now();
    loop {
        look()?;
        match ask() {
            Ok(answer) => return Ok(answer),
            Err(error) if begun.elapsed() > longest => {
                return Err(Error::NotReady { what: what.to_owned(), waited: longest, last: error.to_string() });
            }
            Err(_) => std::thread::sleep(ASK_EVERY),
        }
    }
}
