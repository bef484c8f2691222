//! `tandem logs`: what the pods of a function or of the runtime have printed.

mod follow;
mod lines;

use std::time::Duration;

use futures_util::StreamExt;
use kube::api::LogParams;
use tandem_crds::resources::duration::Duration as TimeText;
use tokio::time::timeout;

use self::lines::{Line, Lines, Printer};
use crate::Exit;
use crate::client::Error;
use crate::cluster::{self, Cluster, Pod, RUNTIME_CONTAINER, WORKER_CONTAINER, function_pods, runtime_pods};
use crate::output::{Format, Palette, print_error};

/// Lines of each pod, if neither their number nor a time is given.
const TAIL_DEFAULT: i64 = 200;
/// Lines of each pod at most.
const TAIL_MAX: i64 = 10_000;
/// What is read of one pod at most, unless it is followed.
const POD_BYTES_MAX: i64 = 16 << 20;
/// How long one more line may take, where nobody waits for new ones.
const LINE_TIMEOUT: Duration = Duration::from_secs(15);
/// Pods that are read at the same time.
const READ_MAX: usize = 8;
const MS_PER_SECOND: u64 = 1_000;

/// Print what the pods of a function, or of the runtime, have printed.
///
/// The pods of all revisions, in the order of time; each line begins with its pod.
///
/// Ends with 0, with 1 if there is no such pod or none has anything to read, and with 2 if the cluster cannot be asked.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  kubectl tandem logs -n shop                  the runtime's pods\n  kubectl tandem logs \
                        order -n shop -f\n  kubectl tandem logs order -n shop --since 10m -o json"
)]
pub(crate) struct Arguments {
    /// A Function or a FunctionRuntime; tfn/NAME or fnrt/NAME where both have the name. Without it: the runtime.
    name: Option<String>,
    /// Wait for more, also from pods that come later, until Ctrl-C.
    #[arg(short, long)]
    follow: bool,
    /// Only what is younger: 30s, 10m, 2h.
    #[arg(long, value_name = "TIME")]
    since: Option<String>,
    /// The last lines of each pod: 200 if no time is given, and 10000 at most.
    #[arg(long, value_name = "LINES")]
    tail: Option<i64>,
    /// What the containers printed before they were started anew.
    #[arg(long, conflicts_with = "follow")]
    previous: bool,
    /// How to print lines: as text, or one JSON object for each.
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
    #[command(flatten)]
    pub(crate) cluster: cluster::Options,
}

/// Whose lines.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Source {
    /// Finds the pods.
    labels: String,
    container: &'static str,
}

impl Source {
    fn runtime(name: &str) -> Self {
        Self { labels: runtime_pods(name), container: RUNTIME_CONTAINER }
    }

    fn function(name: &str) -> Self {
        Self { labels: function_pods(name), container: WORKER_CONTAINER }
    }
}

/// Runs the command.
pub(crate) async fn run(arguments: &Arguments) -> Result<Exit, Error> {
    let parameters = parameters(arguments)?;
    let cluster = Cluster::connect(&arguments.cluster).await?;
    let (source, pods) = find(&cluster, arguments.name.as_deref()).await?;
    if pods.is_empty() && !arguments.follow {
        let name = arguments.name.as_deref().unwrap_or("the runtime");
        print_error(&format!("{name} has no pods in namespace {}", cluster.namespace));
        return Ok(Exit::Negative);
    }
    let printer = Printer::new(arguments.output, Palette::of_stdout(), &pods);
    let parameters = LogParams { container: Some(source.container.to_owned()), ..parameters };
    if arguments.follow {
        return follow::follow(&cluster, &source.labels, &parameters, printer).await;
    }
    Ok(once(&cluster, &pods, &parameters, &printer).await)
}

fn parameters(arguments: &Arguments) -> Result<LogParams, Error> {
    let wrong = |text: &str| Error::Usage(format!("--since {text:?} must be a time, like 30s, 10m or 2h"));
    let since = arguments.since.as_deref().map(|text| {
        let milliseconds = TimeText(text.to_owned()).milliseconds().map_err(|_| wrong(text))?;
        i64::try_from(milliseconds.div_ceil(MS_PER_SECOND).max(1)).map_err(|_| wrong(text))
    });
    let since_seconds = since.transpose()?;
    if arguments.tail.is_some_and(|tail| !(0..=TAIL_MAX).contains(&tail)) {
        return Err(Error::Usage(format!("--tail must be a number from 0 to {TAIL_MAX}")));
    }
    let usual = if since_seconds.is_some() { TAIL_MAX } else { TAIL_DEFAULT };
    let tail = arguments.tail.unwrap_or(usual);
    Ok(LogParams {
        since_seconds,
        tail_lines: Some(tail),
        previous: arguments.previous,
        timestamps: true,
        limit_bytes: (!arguments.follow).then_some(POD_BYTES_MAX),
        ..LogParams::default()
    })
}

/// Whose pods are meant, and which they are.
async fn find(cluster: &Cluster, name: Option<&str>) -> Result<(Source, Vec<Pod>), Error> {
    let source = match name.map(|name| name.split_once('/').unwrap_or(("", name))) {
        None => Source::runtime(&cluster.runtime().await?),
        Some(("function" | "functions" | "tfn", name)) => Source::function(name),
        Some(("runtime" | "functionruntime" | "fnrt", name)) => Source::runtime(name),
        Some(("", name)) => return either(cluster, name).await,
        Some((kind, _)) => {
            return Err(Error::Usage(format!("{kind:?} has no pods; name a tfn/NAME or a fnrt/NAME")));
        }
    };
    let pods = cluster.pods(&source.labels).await?;
    Ok((source, pods))
}

async fn either(cluster: &Cluster, name: &str) -> Result<(Source, Vec<Pod>), Error> {
    let (function, runtime) = (Source::function(name), Source::runtime(name));
    let (of_function, of_runtime) =
        futures_util::try_join!(cluster.pods(&function.labels), cluster.pods(&runtime.labels))?;
    match (of_function.is_empty(), of_runtime.is_empty()) {
        (false, false) => Err(Error::Usage(format!(
            "a Function and a FunctionRuntime are called {name}; name tfn/{name} or fnrt/{name}"
        ))),
        (true, false) => Ok((runtime, of_runtime)),
        (_, true) => Ok((function, of_function)),
    }
}

/// Reads what there is, and prints it in the order of time.
async fn once(cluster: &Cluster, pods: &[Pod], parameters: &LogParams, printer: &Printer) -> Exit {
    let reads = futures_util::stream::iter(pods).map(|pod| read(cluster, &pod.name, parameters));
    let read: Vec<(Vec<Line>, Option<String>)> = reads.buffered(READ_MAX).collect().await;
    let (mut lines, mut answered) = (Vec::new(), false);
    for (pod, (more, broken)) in pods.iter().zip(read) {
        answered |= broken.is_none();
        if let Some(why) = broken {
            print_error(&format!("warning: {} ({}): {why}", pod.name, pod.state));
        }
        lines.extend(more);
    }
    // Lines of one pod stay in their order where the times are equal, or missing.
    lines.sort_by_key(|line| line.time);
    for line in &lines {
        if !printer.print(line) {
            break;
        }
    }
    if answered { Exit::Ok } else { Exit::Negative }
}

/// The lines of one pod, and why there may be more.
async fn read(cluster: &Cluster, pod: &str, parameters: &LogParams) -> (Vec<Line>, Option<String>) {
    let mut read = Vec::new();
    let mut lines = match cluster.log(pod, parameters).await {
        Ok(stream) => Lines::new(pod, stream),
        Err(error) => return (read, Some(error.to_string())),
    };
    loop {
        match timeout(LINE_TIMEOUT, lines.next()).await {
            Ok(Ok(Some(line))) => read.push(line),
            Ok(Ok(None)) => return (read, None),
            Ok(Err(error)) => return (read, Some(error.to_string())),
            Err(_) => return (read, Some(format!("nothing more within {} s", LINE_TIMEOUT.as_secs()))),
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Command {
        #[command(flatten)]
        arguments: Arguments,
    }

    fn parsed(line: &str) -> Result<LogParams, String> {
        let command = Command::try_parse_from(line.split(' ')).map_err(|error| error.to_string())?;
        parameters(&command.arguments).map_err(|error| error.to_string())
    }

    #[test]
    fn every_read_is_bounded() {
        let usual = parsed("logs order").unwrap();
        assert_eq!((usual.tail_lines, usual.since_seconds), (Some(TAIL_DEFAULT), None));
        assert_eq!(usual.limit_bytes, Some(POD_BYTES_MAX));
        let since = parsed("logs order --since 10m").unwrap();
        assert_eq!((since.tail_lines, since.since_seconds), (Some(TAIL_MAX), Some(600)));
        assert_eq!(parsed("logs order --since 1ms").unwrap().since_seconds, Some(1));
        assert_eq!(parsed("logs --tail 5").unwrap().tail_lines, Some(5));
        assert!(parsed("logs --tail 10001").unwrap_err().contains("10000"));
        assert!(parsed("logs --since yesterday").unwrap_err().contains("10m"));
        assert!(parsed("logs -f --previous").is_err());
    }
}
