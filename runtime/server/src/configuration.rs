//! The configuration file of `tandem-runtime`: its types are its schema and its reference.
//!
//! Everything is optional here, so that whatever is wrong with a file, the rest of it can be looked at; what has to be
//! there is said by the schema, and by [`crate::settings`].

use std::path::Path;
use std::sync::OnceLock;

use schemars::JsonSchema;
use schemars::generate::SchemaSettings;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value as Json};
use tandem_crds::load::document::{self, Document, Form};
use tandem_crds::resources::duration::Duration;

/// `apiVersion` of the file.
pub const API_VERSION: &str = "config.tandem.dev/v1alpha1";
/// `kind` of the file.
pub const KIND: &str = "RuntimeConfiguration";
/// Largest file that is read, in bytes.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// How one runtime process is set up: its store, its ports, its topology. What the application is, its resources say.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Configuration {
    /// `config.tandem.dev/v1alpha1`.
    #[schemars(required, length(max = 64), extend("const" = API_VERSION))]
    pub api_version: Option<String>,
    /// `RuntimeConfiguration`.
    #[schemars(required, length(max = 64), extend("const" = KIND))]
    pub kind: Option<String>,
    /// Where state lives: exactly one of the fields.
    #[serde(default)]
    pub store: Store,
    /// Where this process listens, as `IP:PORT`. Port 0 takes a free one.
    #[serde(default)]
    pub listen: Listen,
    /// The other runtimes on the same store. Needs `listen.peer`.
    #[serde(default)]
    pub peers: Peers,
    /// What is run.
    #[serde(default)]
    pub topology: Topology,
    /// Bounds of this process. Those of a flow are in the `FunctionRuntime`.
    #[serde(default)]
    pub limits: Limits,
    /// How long flows that run may take to end once the process is told to stop.
    #[serde(default = "default_drain_grace")]
    pub drain_grace: Duration,
    /// Logs and traces.
    #[serde(default)]
    pub telemetry: Telemetry,
}

impl Default for Configuration {
    fn default() -> Self {
        Self {
            api_version: None,
            kind: None,
            store: Store::default(),
            listen: Listen::default(),
            peers: Peers::default(),
            topology: Topology::default(),
            limits: Limits::default(),
            drain_grace: default_drain_grace(),
            telemetry: Telemetry::default(),
        }
    }
}

/// Where state lives.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Store {
    /// An engine inside this process: one machine, one process.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Embedded")]
    pub embedded: Option<Embedded>,
    /// A TiKV cluster, which several runtimes share.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Tikv")]
    pub tikv: Option<Tikv>,
}

/// The embedded store.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Embedded {
    /// Where it keeps its files. Made if it is not there. One process at a time.
    #[schemars(required, length(min = 1, max = 4_096))]
    pub directory: Option<String>,
}

/// A TiKV cluster.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Tikv {
    /// Where its placement drivers (PD) listen, as `HOST:PORT`. One that answers is enough; it names the others. A change
    /// counts at once, without a restart.
    #[schemars(required, length(min = 1, max = 16), inner(length(min = 1, max = 255)))]
    pub endpoints: Option<Vec<String>>,
    /// What all keys of this installation begin with; `tandem` by default. Two installations on one cluster must not share
    /// it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String", length(min = 1, max = 64), regex(pattern = "^[A-Za-z0-9][-A-Za-z0-9_./]*$"))]
    pub prefix: Option<String>,
    /// The keyspace, on a cluster with API version 2.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String", length(min = 1, max = 64), regex(pattern = "^[A-Za-z0-9][-A-Za-z0-9_]*$"))]
    pub keyspace: Option<String>,
    /// Certificates for mutual TLS. Without it nothing is encrypted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Tls")]
    pub tls: Option<Tls>,
    /// How far back `asOf` reads reach. The garbage collection of the cluster is held back by as much: at least `10m`,
    /// at most `168h`.
    #[serde(default = "default_history")]
    pub history: Duration,
    /// Whether this process may be elected to remove old history and the locks of the dead. `false` where somebody else does
    /// so on the same cluster, such as TiDB.
    #[serde(default = "default_housekeeping")]
    pub housekeeping: bool,
}

impl Default for Tikv {
    fn default() -> Self {
        Self {
            endpoints: None,
            prefix: None,
            keyspace: None,
            tls: None,
            history: default_history(),
            housekeeping: true,
        }
    }
}

/// Certificates, PEM. They are read again when they change.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Tls {
    /// File with the certificates of the authorities that are trusted.
    #[schemars(required, length(min = 1, max = 4_096))]
    pub ca: Option<String>,
    /// File with the certificate of this client.
    #[schemars(required, length(min = 1, max = 4_096))]
    pub cert: Option<String>,
    /// File with the key of that certificate.
    #[schemars(required, length(min = 1, max = 4_096))]
    pub key: Option<String>,
}

/// Where this process listens.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Listen {
    /// Where requests come in.
    #[serde(default = "default_http")]
    #[schemars(length(max = 64))]
    pub http: String,
    /// Health, metrics, flows, state. Whoever reaches it can read and run everything.
    #[serde(default = "default_admin")]
    #[schemars(length(max = 64))]
    pub admin: String,
    /// Where the other runtimes reach this one. Without it, it does itself whatever it is asked, and they pass nothing on to it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String", length(max = 64))]
    pub peer: Option<String>,
}

impl Default for Listen {
    fn default() -> Self {
        Self { http: default_http(), admin: default_admin(), peer: None }
    }
}

/// The other runtimes on the same store.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Peers {
    /// The address that the other runtimes are told, as `HOST:PORT`; `listen.peer` if that is one that they can reach.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String", length(min = 1, max = 255))]
    pub advertise: Option<String>,
    /// The name of this runtime among them: the name of its pod, say. A made-up one by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(
        with = "String",
        length(min = 1, max = 63),
        regex(pattern = "^[A-Za-z0-9]([-A-Za-z0-9.]*[A-Za-z0-9])?$")
    )]
    pub member: Option<String>,
}

/// What is run.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Topology {
    /// Files of resources, and directories of them. They are watched: a change takes effect as a whole, or not at all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Vec<String>", length(min = 1, max = 64), inner(length(min = 1, max = 4_096)))]
    pub resources: Option<Vec<String>>,
    /// Instead of `resources`: the file with the bundle that an operator made of them, JSON, compressed with gzip or not.
    /// It is watched as well, and the operator may push the same to the admin port.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String", length(min = 1, max = 4_096))]
    pub bundle: Option<String>,
    /// Where workers listen, for functions whose resource names an image and no endpoint.
    #[serde(default)]
    #[schemars(length(max = 256))]
    pub workers: Vec<Worker>,
}

/// A worker that listens already.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Worker {
    /// The functions that it runs.
    #[schemars(required, length(min = 1, max = 256), inner(length(min = 1, max = 63)))]
    pub functions: Option<Vec<String>>,
    /// Where it listens: `http://host:port`, with a path for the HTTP profile.
    #[schemars(required, length(min = 1, max = 2_048), regex(pattern = "^https?://[^/?#]+(/[^?#]*)?$"))]
    pub url: Option<String>,
    /// How it is talked to.
    #[serde(default)]
    pub protocol: Protocol,
}

/// How a worker is talked to: the function protocol, or the plain HTTP profile.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Protocol {
    /// `tandem.function.v1alpha1`
    #[default]
    Grpc,
    /// One JSON POST a step.
    Http,
}

/// Bounds of this process.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Limits {
    /// Flows in this process at one time; more are told 429. At most what the `FunctionRuntime` says, which is the default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "i32", range(min = 1, max = 1_000_000))]
    pub flows_in_flight_max: Option<i32>,
    /// Threads that run flows. As many as there are processors by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "i32", range(min = 1, max = 1_024))]
    pub threads: Option<i32>,
}

/// Logs and traces.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Telemetry {
    /// How the log is written to standard error. `Auto` is text on a terminal and JSON elsewhere.
    #[serde(default)]
    pub log_format: LogFormat,
    /// What is logged: `info`, or `tandem_runtime=debug,warn`. The variable `TANDEM_LOG` counts more.
    #[serde(default = "default_log_filter")]
    #[schemars(length(min = 1, max = 1_024))]
    pub log_filter: String,
    /// Where traces are sent by OTLP over gRPC: `http://host:4317`. The variable `OTEL_EXPORTER_OTLP_ENDPOINT` counts more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String", length(min = 1, max = 2_048), regex(pattern = "^https?://[^/?#]+(/[^?#]*)?$"))]
    pub traces: Option<String>,
}

impl Default for Telemetry {
    fn default() -> Self {
        Self { log_format: LogFormat::default(), log_filter: default_log_filter(), traces: None }
    }
}

/// How the log is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema, clap::ValueEnum)]
pub enum LogFormat {
    /// Text on a terminal, JSON elsewhere.
    #[default]
    Auto,
    /// A line for people.
    Text,
    /// A line for machines.
    Json,
}

fn default_http() -> String {
    "127.0.0.1:8080".to_owned()
}

fn default_admin() -> String {
    "127.0.0.1:8081".to_owned()
}

fn default_drain_grace() -> Duration {
    Duration("20s".to_owned())
}

fn default_history() -> Duration {
    Duration("1h".to_owned())
}

fn default_housekeeping() -> bool {
    true
}

fn default_log_filter() -> String {
    "info,tikv_client=warn".to_owned()
}

/// Why a file cannot be read at all.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It is not there, or may not be read.
    #[error("failed to read {path}")]
    Read {
        /// The file.
        path: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// It is no configuration.
    #[error("{path} has {bytes} bytes, at most {FILE_BYTES_MAX} are read")]
    TooLarge {
        /// The file.
        path: String,
        /// Its size.
        bytes: u64,
    },
}

/// Reads a file. Everything that is wrong in it is in the document's problems.
pub fn read(path: &Path) -> Result<Document, Error> {
    let name = path.display().to_string();
    let failed = |source| Error::Read { path: name.clone(), source };
    let bytes = std::fs::metadata(path).map_err(failed)?.len();
    if bytes > FILE_BYTES_MAX {
        return Err(Error::TooLarge { path: name, bytes });
    }
    let text = std::fs::read(path).map_err(failed)?;
    Ok(parse(&name, &text))
}

/// Reads a text, which positions call `file`.
pub fn parse(file: &str, text: &[u8]) -> Document {
    document::read(file, text, &Form { api_version: API_VERSION, kind: KIND, schema: schema() })
}

/// The JSON Schema of the file.
pub fn schema() -> &'static Json {
    static SCHEMA: OnceLock<Json> = OnceLock::new();
    SCHEMA.get_or_init(|| {
        let settings = SchemaSettings::draft2020_12().with(|settings| settings.inline_subschemas = true);
        let schema = settings.into_generator().into_root_schema_for::<Configuration>();
        let mut schema = Json::from(schema);
        simplify(&mut schema);
        schema
    })
}

/// Writes choices between constants as what they are: an enumeration.
fn simplify(schema: &mut Json) {
    match schema {
        Json::Object(object) => {
            let constants = object.get("oneOf").and_then(constants);
            if let Some(constants) = constants {
                object.remove("oneOf");
                object.insert("type".to_owned(), Json::from("string"));
                object.insert("enum".to_owned(), constants);
            }
            object.values_mut().for_each(simplify);
        }
        Json::Array(items) => items.iter_mut().for_each(simplify),
        _ => {}
    }
}

/// The values of a choice between constants; nothing if it is another choice.
fn constants(choices: &Json) -> Option<Json> {
    choices
        .as_array()?
        .iter()
        .map(|choice| choice.as_object().and_then(|choice: &Map<_, _>| choice.get("const")).cloned())
        .collect()
}
