//! Orders through the Service, from thousands of real purchases, and every invariant on the stored state afterwards: the
//! program of `make demo`, pointed at a cluster.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};

use crate::kube::{Namespace, eventually};
use crate::site::{START_WITHIN, built};

/// A Service that reaches the admin ports, which no Service of the operator does.
const ADMIN: &str = "apiVersion: v1\nkind: Service\nmetadata: {name: orders-admin}\nspec:\n  \
                     selector: {tandem.dev/runtime: orders, app.kubernetes.io/component: runtime}\n  \
                     ports: [{port: 9090, targetPort: admin}]\n";
/// How long all orders may take.
const ENDS_WITHIN: Duration = Duration::from_mins(5);
/// How long one request may take.
const ANSWERS_WITHIN: Duration = Duration::from_secs(30);
/// Clients that send at the same time; they share two processors with the cluster.
const CONNECTIONS: &str = "8";

/// So many orders last long enough for something to happen meanwhile, on the stores of the harness and a busy machine.
pub(crate) const FEW: usize = 800;

/// Orders that are being sent.
pub(crate) struct Load {
    child: Child,
    log: std::path::PathBuf,
}

/// Begins to send so many orders.
pub(crate) fn begin(namespace: &Namespace, orders: usize) -> anyhow::Result<Load> {
    namespace.apply(ADMIN)?;
    let http = format!("http://{}", address(namespace, "orders")?);
    let admin = format!("http://{}:9090", address(namespace, "orders-admin")?);
    let data = std::env::temp_dir().join(format!("tandem-e2e-{}", namespace.name));
    std::fs::create_dir_all(&data)?;
    let log = data.with_extension("log");
    let output = std::fs::File::create(&log)?;
    let mut command = built("orders-demo")?;
    command.arg("--at").arg(format!("{http},{admin}")).arg("--data").arg(data).args(["--connections", CONNECTIONS]);
    command.args(["--orders", &orders.to_string()]).stdin(Stdio::null());
    let child = command.stdout(output.try_clone()?).stderr(output).spawn().context("failed to start orders-demo")?;
    Ok(Load { child, log })
}

/// The address of a Service, which this machine reaches.
pub(crate) fn address(namespace: &Namespace, service: &str) -> anyhow::Result<String> {
    eventually("Service", START_WITHIN, || {
        let service = namespace.get(&["service", service])?;
        service["spec"]["clusterIP"].as_str().map(str::to_owned).context("it has no address")
    })
}

/// Sends one empty request, and returns the status of its answer.
pub(crate) fn post(address: &str, path: &str) -> anyhow::Result<u16> {
    exchange(address, path).map(|(status, _)| status)
}

/// The same, for the body of an answer that says that it is done.
pub(crate) fn post_for_text(address: &str, path: &str) -> anyhow::Result<String> {
    let (status, body) = exchange(address, path)?;
    ensure!(status == 200, "HTTP status {status}: {body}");
    Ok(body)
}

fn exchange(address: &str, path: &str) -> anyhow::Result<(u16, String)> {
    let mut stream = TcpStream::connect((address, 80))?;
    stream.set_read_timeout(Some(ANSWERS_WITHIN))?;
    write!(stream, "POST {path} HTTP/1.1\r\nHost: {address}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    let (head, body) = text.split_once("\r\n\r\n").context("not an answer of HTTP")?;
    let status = head.split(' ').nth(1).context("no status")?;
    Ok((status.parse()?, body.to_owned()))
}

impl Load {
    /// What it has printed so far.
    pub(crate) fn printed(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Whether orders are being sent still.
    pub(crate) fn is_running(&mut self) -> anyhow::Result<bool> {
        Ok(self.child.try_wait()?.is_none())
    }

    /// Waits until a fifth of the orders, or two, three, four, have an outcome.
    pub(crate) fn await_fifths(&mut self, fifths: usize) -> anyhow::Result<()> {
        let begun = Instant::now();
        while self.printed().matches("orders have an outcome").count() < fifths {
            ensure!(self.child.try_wait()?.is_none(), "the load has ended: {}", self.printed());
            ensure!(begun.elapsed() < ENDS_WITHIN, "the load does not get on: {}", self.printed());
            std::thread::sleep(Duration::from_millis(50));
        }
        Ok(())
    }

    /// Waits for its end; an error unless every order has an outcome and every invariant holds.
    pub(crate) fn finish(mut self) -> anyhow::Result<String> {
        let begun = Instant::now();
        let status = loop {
            if let Some(status) = self.child.try_wait()? {
                break status;
            }
            ensure!(begun.elapsed() < ENDS_WITHIN, "the load does not end: {}", self.printed());
            std::thread::sleep(Duration::from_millis(50));
        };
        let printed = self.printed();
        ensure!(status.success() && printed.contains("invariants hold"), "{status}: {printed}");
        Ok(printed)
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        // It may have ended long ago.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
