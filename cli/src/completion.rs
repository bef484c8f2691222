//! `tandem completion`: scripts that let shells complete the command line; and the answers that `kubectl` asks the plug-in for.
//!
//! `kubectl` asks a program called `kubectl_complete-tandem` with the words behind `kubectl tandem`, of which the last one is
//! not complete. It prints what that could become, one a line, and a colon with the number of what the shell is to do.

use clap::{Arg, Command, ValueHint};
use clap_complete::Shell;

use crate::output::{print, print_line};

/// The shell completes with the names of files where nothing was suggested.
const DIRECTIVE_DEFAULT: &str = ":0";
/// The shell does not do that.
const DIRECTIVE_NO_FILES: &str = ":4";

/// Prints a script that lets a shell complete the command line.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  source <(tandem completion bash)\n  tandem completion zsh > ~/.zfunc/_tandem\n  \
                        tandem completion fish > ~/.config/fish/completions/tandem.fish")]
pub(crate) struct Arguments {
    /// Which shell.
    shell: Shell,
}

/// Runs the command.
pub(crate) fn run(arguments: &Arguments, command: &mut Command) {
    print(&script(arguments.shell, command));
}

fn script(shell: Shell, command: &mut Command) -> String {
    let name = command.get_name().to_owned();
    let mut script = Vec::new();
    clap_complete::generate(shell, command, name, &mut script);
    String::from_utf8_lossy(&script).into_owned()
}

/// Answers `kubectl`.
pub(crate) fn answer_kubectl(mut command: Command, words: &[String]) {
    command.build();
    let (candidates, takes_files) = complete(&command, words);
    let directive = if takes_files { DIRECTIVE_DEFAULT } else { DIRECTIVE_NO_FILES };
    for line in candidates.iter().map(String::as_str).chain([directive]) {
        if !print_line(line) {
            return;
        }
    }
}

/// What the last of `words` could become, and whether the name of a file may stand there.
fn complete(command: &Command, words: &[String]) -> (Vec<String>, bool) {
    let (last, before) = words.split_last().map_or(("", words), |(last, before)| (last.as_str(), before));
    let place = Place::behind(command, before);
    if let Some(option) = place.option {
        return values(option, last);
    }
    if last.starts_with('-') {
        return (options(place.command, last), false);
    }
    let mut candidates: Vec<String> = place.command.get_subcommands().filter_map(|one| described(one, last)).collect();
    let positional = place.command.get_positionals().nth(place.positionals).or_else(|| repeated(place.command));
    let (more, takes_files) = positional.map(|argument| values(argument, last)).unwrap_or_default();
    candidates.extend(more);
    (candidates, takes_files)
}

/// Where on a command line somebody is.
struct Place<'a> {
    command: &'a Command,
    /// How many positional arguments of the command were given.
    positionals: usize,
    /// The option whose value comes next.
    option: Option<&'a Arg>,
}

impl<'a> Place<'a> {
    fn behind(command: &'a Command, words: &[String]) -> Self {
        let mut place = Self { command, positionals: 0, option: None };
        for word in words {
            if place.option.take().is_some() {
                continue;
            }
            if word.starts_with('-') {
                place.option = option(place.command, word);
            } else if let Some(inner) = place.command.find_subcommand(word) {
                (place.command, place.positionals) = (inner, 0);
            } else {
                place.positionals += 1;
            }
        }
        place
    }
}

/// The option that `word` names, if its value is the next word.
fn option<'a>(command: &'a Command, word: &str) -> Option<&'a Arg> {
    let is_meant = |argument: &&Arg| match word.strip_prefix("--") {
        Some(long) => argument.get_long() == Some(long),
        None => {
            argument.get_short().is_some_and(|short| word.chars().nth(1) == Some(short) && word.chars().count() == 2)
        }
    };
    command.get_arguments().find(is_meant).filter(|argument| argument.get_action().takes_values())
}

fn options(command: &Command, begun: &str) -> Vec<String> {
    let shown = command.get_arguments().filter(|argument| !argument.is_hide_set());
    let long = shown.filter_map(|argument| Some(line(&format!("--{}", argument.get_long()?), argument.get_help())));
    long.filter(|line| line.starts_with(begun)).collect()
}

fn described(command: &Command, begun: &str) -> Option<String> {
    let is_meant = !command.is_hide_set() && command.get_name().starts_with(begun);
    is_meant.then(|| line(command.get_name(), command.get_about()))
}

/// A candidate, and behind a tab what it is for: shells that can, show that.
fn line(candidate: &str, about: Option<&clap::builder::StyledStr>) -> String {
    let about = about.map(ToString::to_string).unwrap_or_default();
    let first = about.lines().next().unwrap_or_default();
    if first.is_empty() { candidate.to_owned() } else { format!("{candidate}\t{first}") }
}

/// The values that an argument may have, if they are known, and whether they may be files.
fn values(argument: &Arg, begun: &str) -> (Vec<String>, bool) {
    let known = argument.get_possible_values();
    let known: Vec<_> =
        known.iter().map(|value| value.get_name().to_owned()).filter(|v| v.starts_with(begun)).collect();
    let hint = argument.get_value_hint();
    (known, matches!(hint, ValueHint::AnyPath | ValueHint::FilePath | ValueHint::DirPath))
}

/// The argument that takes all further words.
fn repeated(command: &Command) -> Option<&Arg> {
    let takes_more = |argument: &&Arg| argument.get_num_args().is_some_and(|range| range.max_values() > 1);
    command.get_positionals().last().filter(takes_more)
}

#[cfg(test)]
mod tests {
    use clap::ValueEnum;

    use super::*;
    use crate::command_line;
    use crate::program::Program;

    /// The candidates without what they are for, and whether files may follow.
    fn completed(line: &str) -> (Vec<String>, bool) {
        let mut command = command_line(Program::Plugin);
        command.build();
        let words: Vec<String> = line.split(' ').map(str::to_owned).collect();
        let (candidates, takes_files) = complete(&command, &words);
        let bare = candidates.iter().map(|line| line.split('\t').next().unwrap_or_default().to_owned());
        (bare.collect(), takes_files)
    }

    #[test]
    fn what_kubectl_asks_for_is_what_the_command_line_takes() {
        let check = |line: &str, expected: &[&str]| assert_eq!(completed(line).0, expected, "{line:?}");
        check("sta", &["state", "status"]);
        check("flows ", &["get", "list", "cancel", "help"]);
        check("-n shop flows l", &["list"]);
        check("status -o ", &["text", "json"]);
        check("status --output=json --namesp", &["--namespace"]);
        check("logs order --f", &["--follow"]);
        check("logs --namespace ", &[]);
        check("nonsense --x", &[]);
        let all = completed("").0;
        assert!(all.contains(&"logs".to_owned()) && !all.contains(&"dev".to_owned()), "{all:?}");
    }

    #[test]
    fn files_are_left_to_the_shell_where_they_are_meant() {
        for (line, expected) in
            [("check ", true), ("check a.yaml ", true), ("status --kubeconfig ", true), ("logs ", false), ("", false)]
        {
            assert_eq!(completed(line).1, expected, "{line:?}");
        }
    }

    #[test]
    fn every_shell_gets_a_script_that_knows_all_commands() {
        for shell in Shell::value_variants() {
            let script = script(*shell, &mut command_line(Program::Tandem));
            for word in ["tandem", "status", "completion", "kubeconfig"] {
                assert!(script.contains(word), "{shell}: no {word}");
            }
        }
    }
}
