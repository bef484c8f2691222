//! Lines as they come, from the pods that are there and from those that come later.

use std::collections::HashSet;
use std::time::Duration;

use kube::api::LogParams;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval};

use super::lines::{Line, Lines, Printer};
use crate::Exit;
use crate::client::Error;
use crate::cluster::{Cluster, Pod};
use crate::output::print_error;

/// How often it is looked for new pods.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// Lines that wait to be printed. Pods whose lines find no room wait, too.
const WAITING_MAX: usize = 256;
/// Pods that are followed at the same time.
const FOLLOWED_MAX: usize = 64;

/// One life of a container: started anew, it has another log.
type Life = (String, i32);

/// Prints lines until nobody reads them, or Ctrl-C.
pub(super) async fn follow(
    cluster: &Cluster,
    labels: &str,
    parameters: &LogParams,
    printer: Printer,
) -> Result<Exit, Error> {
    let (sender, mut lines) = mpsc::channel(WAITING_MAX);
    let (mut known, mut readers) = (HashSet::<Life>::new(), JoinSet::new());
    let mut looks = interval(LOOK_EVERY);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut is_first = true;
    loop {
        tokio::select! {
            // This end of the channel is kept, so that there is always another line to wait for.
            Some(line) = lines.recv() => {
                if !printer.print(&line) {
                    return Ok(Exit::Ok);
                }
            }
            _ = looks.tick() => {
                let pods = match cluster.pods(labels).await {
                    Ok(pods) => pods,
                    Err(error) if is_first => return Err(error.into()),
                    Err(error) => {
                        print_error(&format!("warning: {error}"));
                        continue;
                    }
                };
                for pod in pods.into_iter().filter(|pod| pod.is_running) {
                    let is_new = known.insert((pod.name.clone(), pod.restarts));
                    if is_new && readers.len() < FOLLOWED_MAX {
                        readers.spawn(read(cluster.clone(), pod, from(parameters, is_first), sender.clone()));
                    }
                }
                is_first = false;
            }
            Some(_) = readers.join_next(), if !readers.is_empty() => {}
            _ = tokio::signal::ctrl_c() => return Ok(Exit::Ok),
        }
    }
}

/// Of a pod that came later, everything is new.
fn from(parameters: &LogParams, is_first: bool) -> LogParams {
    let mut parameters = LogParams { follow: true, ..parameters.clone() };
    if !is_first {
        (parameters.since_seconds, parameters.tail_lines) = (None, None);
    }
    parameters
}

async fn read(cluster: Cluster, pod: Pod, parameters: LogParams, sender: mpsc::Sender<Line>) {
    let broken = |why: String| print_error(&format!("warning: {}: {why}", pod.name));
    let stream = match cluster.log(&pod.name, &parameters).await {
        Ok(stream) => stream,
        Err(error) => return broken(error.to_string()),
    };
    let mut lines = Lines::new(&pod.name, stream);
    loop {
        match lines.next().await {
            Ok(Some(line)) => {
                if sender.send(line).await.is_err() {
                    return;
                }
            }
            Ok(None) => return,
            Err(error) => return broken(error.to_string()),
        }
    }
}
