//! The checks that a schema cannot do.

use super::{
    Code, Configuration, Endpoint, File, FunctionName, Location, Origin, Path, PathBuf, Peers, Problem, Protocol,
    Settings, SocketAddr, Tikv, codes, configuration, duration, telemetry,
};
use std::time::Duration;

/// Longest grace, in milliseconds.
const DRAIN_GRACE_MS_MAX: u64 = 3_600_000;
/// Shortest history, in milliseconds.
const HISTORY_MS_MIN: u64 = 600_000;
/// Longest history, in milliseconds.
const HISTORY_MS_MAX: u64 = 168 * 3_600_000;

/// Turns a configuration into settings, and collects what is wrong with it.
pub(super) struct Checker {
    pub(super) origin: Origin,
    pub(super) problems: Vec<Problem>,
}

impl Checker {
    /// Says that something is wrong with a field, unless something is known to be wrong with it, or within it.
    fn problem(&mut self, code: &'static Code, field: &str, message: String, help: &str) {
        let is_known = |problem: &Problem| {
            problem.field.strip_prefix(field).is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
        };
        if !self.problems.iter().any(is_known) {
            let problem = Problem::new(code, "", message).field(field).help(help);
            self.problems.push(problem.at(self.origin.locate(field)));
        }
    }

    /// The settings. Nothing only if there is a problem that says why.
    pub(super) fn settings(&mut self, from: &Configuration, ready_file: Option<PathBuf>) -> Option<Settings> {
        let store = self.store(&from.store);
        let http = self.address("listen.http", &from.listen.http);
        let admin = self.address("listen.admin", &from.listen.admin);
        let peers = self.peers(from);
        let bundle = from.topology.bundle.as_deref().map(|path| self.file("topology.bundle", path));
        let resources = self.resources(from.topology.resources.as_deref(), bundle.is_some());
        let workers = self.workers(&from.topology.workers);
        let drain_grace = self.duration("drainGrace", &from.drain_grace, 0, DRAIN_GRACE_MS_MAX);
        if let Err(error) = telemetry::check_filter(&from.telemetry.log_filter) {
            let message = format!("logFilter cannot be {:?}: {error}", from.telemetry.log_filter);
            self.problem(
                &codes::OUT_OF_BOUNDS,
                "telemetry.logFilter",
                message,
                "write info, or tandem_runtime=debug,warn",
            );
        }
        Some(Settings {
            store: store?,
            http: http?,
            admin: admin?,
            peers,
            resources,
            bundle,
            workers,
            flows_in_flight_max: from.limits.flows_in_flight_max.and_then(|number| usize::try_from(number).ok()),
            threads: from.limits.threads.and_then(|number| usize::try_from(number).ok()),
            drain_grace: drain_grace?,
            log_format: from.telemetry.log_format,
            log_filter: from.telemetry.log_filter.clone(),
            traces: from.telemetry.traces.clone(),
            ready_file,
        })
    }

    /// Where state lives.
    pub(super) fn store(&mut self, store: &configuration::Store) -> Option<Location> {
        const BOTH: &str = "name exactly one of embedded and tikv";
        match (&store.embedded, &store.tikv) {
            (Some(embedded), None) => {
                let directory = embedded.directory.as_deref()?;
                Some(Location::Embedded(self.origin.path("store.embedded.directory", directory)))
            }
            (None, Some(tikv)) => self.tikv(tikv),
            (None, None) => {
                let help = format!("{BOTH}, in the file or with --store");
                self.problem(&codes::MISSING_FIELD, "store", "no store is named".to_owned(), &help);
                None
            }
            (Some(_), Some(_)) => {
                self.problem(&codes::RULE_BROKEN, "store", "two stores are named".to_owned(), BOTH);
                None
            }
        }
    }

    fn tikv(&mut self, tikv: &configuration::Tikv) -> Option<Location> {
        for (index, endpoint) in tikv.endpoints.iter().flatten().enumerate() {
            self.host_and_port(&format!("store.tikv.endpoints[{index}]"), endpoint, "pd.example:2379");
        }
        for (name, value) in [("prefix", &tikv.prefix), ("keyspace", &tikv.keyspace)] {
            if let Some(value) = value.as_ref().filter(|value| !is_space(value)) {
                let message = format!("{name} cannot be {value:?}");
                let help = "use up to 64 of A-Z, a-z, 0-9, '-', '_', '.' and '/', a letter or digit first";
                self.problem(&codes::OUT_OF_BOUNDS, &format!("store.tikv.{name}"), message, help);
            }
        }
        if let Some(tls) = &tikv.tls {
            for (name, path) in [("ca", &tls.ca), ("cert", &tls.cert), ("key", &tls.key)] {
                self.certificate(name, path.as_deref());
            }
        }
        let history = self.duration("store.tikv.history", &tikv.history, HISTORY_MS_MIN, HISTORY_MS_MAX)?;
        let origin = &self.origin;
        Some(Location::Tikv(Tikv::of(tikv, history, |field, path| origin.path(field, path))))
    }

    /// A file of TLS: all of them, or none. With one of them missing, nothing would be encrypted.
    fn certificate(&mut self, name: &str, path: Option<&str>) {
        let field = format!("store.tikv.tls.{name}");
        match path {
            None => {
                let help = format!("add {name}: with TLS, all of ca, cert and key are needed");
                self.problem(&codes::MISSING_FIELD, &field, format!("tls has no {name}"), &help);
            }
            Some(path) => {
                let path = self.origin.path(&field, path);
                if let Err(error) = File::open(&path) {
                    self.unreadable(&field, &path, &error);
                }
            }
        }
    }

    fn unreadable(&mut self, field: &str, path: &Path, error: &std::io::Error) {
        let message = format!("{} cannot be read: {error}", path.display());
        self.problem(&codes::UNREADABLE_FILE, field, message, codes::UNREADABLE_FILE.help);
    }

    fn address(&mut self, field: &str, text: &str) -> Option<SocketAddr> {
        let address = text.parse();
        if address.is_err() {
            let message = format!("{text:?} is no address to listen on");
            self.problem(&codes::OUT_OF_BOUNDS, field, message, "write IP:PORT, as 127.0.0.1:8080 or 0.0.0.0:8080");
        }
        address.ok()
    }

    fn host_and_port(&mut self, field: &str, text: &str, example: &str) {
        let is_address = text.rsplit_once(':').is_some_and(|(host, port)| {
            let is_name = !host.is_empty() && !host.contains(|c: char| c.is_whitespace() || matches!(c, '/' | '@'));
            is_name && port.parse::<u16>().is_ok_and(|port| port > 0)
        });
        if !is_address {
            let message = format!("{text:?} is no address");
            self.problem(&codes::OUT_OF_BOUNDS, field, message, &format!("write HOST:PORT, as {example}"));
        }
    }

    fn duration(&mut self, field: &str, text: &duration::Duration, least: u64, most: u64) -> Option<Duration> {
        let name = field.rsplit('.').next().unwrap_or(field);
        match text.milliseconds() {
            Ok(milliseconds) if (least..=most).contains(&milliseconds) => Some(Duration::from_millis(milliseconds)),
            Ok(_) => {
                let [least, most] = [least, most].map(written);
                let help = format!("choose one from {least} to {most}");
                self.problem(&codes::OUT_OF_BOUNDS, field, format!("{name} cannot be {text}"), &help);
                None
            }
            Err(_) => {
                let message = format!("{name} cannot be {:?}", text.0);
                self.problem(&codes::INVALID_DURATION, field, message, codes::INVALID_DURATION.help);
                None
            }
        }
    }

    /// How it takes part among others. Nothing if it does not, or if there is a problem that says why.
    fn peers(&mut self, from: &Configuration) -> Option<Peers> {
        let configuration::Peers { advertise, member } = from.peers.clone();
        let Some(listen) = &from.listen.peer else {
            for (field, value) in [("peers.advertise", &advertise), ("peers.member", &member)] {
                if value.is_some() {
                    let message = "there is no listen.peer, so nobody can reach this runtime".to_owned();
                    self.problem(&codes::RULE_BROKEN, field, message, "add listen.peer, or remove it");
                }
            }
            return None;
        };
        let listen = self.address("listen.peer", listen);
        if let Some(advertise) = &advertise {
            self.host_and_port("peers.advertise", advertise, "10.0.0.7:8082");
        } else if listen.is_some_and(|address| address.ip().is_unspecified()) {
            let message = "it is not said at which address the other runtimes reach this one".to_owned();
            let help = "add peers.advertise (or --advertise): listen.peer names no single address";
            self.problem(&codes::MISSING_FIELD, "peers.advertise", message, help);
        }
        if from.store.embedded.is_some() {
            let message = "the embedded store has one runtime, which needs no peers".to_owned();
            self.problem(&codes::RULE_BROKEN, "listen.peer", message, "use store.tikv, or remove listen.peer");
        }
        Some(Peers { listen: listen?, advertise, member })
    }

    fn resources(&mut self, paths: Option<&[String]>, has_bundle: bool) -> Vec<PathBuf> {
        let paths = paths.unwrap_or_default();
        if paths.is_empty() && !has_bundle {
            let message = "no resources are named, so there is nothing to run".to_owned();
            let help = "name their files or directories, in the file or with --resources";
            self.problem(&codes::MISSING_FIELD, "topology.resources", message, help);
        }
        if !paths.is_empty() && has_bundle {
            let message = "there are resources and a bundle".to_owned();
            self.problem(&codes::RULE_BROKEN, "topology.bundle", message, "name one of the two");
        }
        let paths = paths.iter().enumerate();
        paths.map(|(index, path)| self.file(&format!("topology.resources[{index}]"), path)).collect()
    }

    /// A file or directory that has to be there.
    fn file(&mut self, field: &str, path: &str) -> PathBuf {
        let path = self.origin.path(field, path);
        if let Err(error) = std::fs::metadata(&path) {
            self.unreadable(field, &path, &error);
        }
        path
    }

    fn workers(&mut self, workers: &[configuration::Worker]) -> Vec<(FunctionName, Endpoint)> {
        let mut found = Vec::new();
        for (index, worker) in workers.iter().enumerate() {
            let protocol = match worker.protocol {
                configuration::Protocol::Grpc => Protocol::Grpc,
                configuration::Protocol::Http => Protocol::Http,
            };
            let endpoint = Endpoint::new(worker.url.clone().unwrap_or_default(), protocol);
            for (number, name) in worker.functions.iter().flatten().enumerate() {
                match name.parse::<FunctionName>() {
                    Ok(name) => found.push((name, endpoint.clone())),
                    Err(error) => {
                        let field = format!("topology.workers[{index}].functions[{number}]");
                        self.problem(&codes::INVALID_NAME, &field, error.to_string(), codes::INVALID_NAME.help);
                    }
                }
            }
        }
        found
    }
}

/// The name of a keyspace, or a prefix. The pattern of the schema, for values of flags.
fn is_space(text: &str) -> bool {
    const CHARACTERS_MAX: usize = 64;
    let is_allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | '/');
    text.len() <= CHARACTERS_MAX
        && text.starts_with(|c: char| c.is_ascii_alphanumeric())
        && text.chars().all(is_allowed)
}

/// Milliseconds as they are written in messages: `1m`, `168h`.
fn written(milliseconds: u64) -> String {
    const MINUTE: u64 = 60_000;
    const HOUR: u64 = 60 * MINUTE;
    match milliseconds {
        whole if whole >= MINUTE && whole % MINUTE == 0 && whole % HOUR != 0 => format!("{}m", whole / MINUTE),
        other => duration::Duration::from_milliseconds(other).0,
    }
}
