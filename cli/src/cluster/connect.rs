//! From a kubeconfig to a client.

use std::time::Duration;

use kube::config::{KubeConfigOptions, Kubeconfig, KubeconfigError};
use kube::{Client, Config};

use super::error::{Asked, Error, root_cause};
use super::{Cluster, Options};

/// How long one call of the API server may take, connecting and repetitions included.
pub(crate) const API_TIMEOUT: Duration = Duration::from_secs(15);
/// How long a connection to the API server may take to come about.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

impl Cluster {
    /// A connection to what `options` name. The API server is not asked yet.
    pub(crate) async fn connect(options: &Options) -> Result<Self, Error> {
        let mut config = configuration(options).await?;
        config.connect_timeout = Some(CONNECT_TIMEOUT);
        let url = config.cluster_url.to_string().trim_end_matches('/').to_owned();
        let namespace = options.namespace.clone().unwrap_or_else(|| config.default_namespace.clone());
        let again = options.again(&namespace);
        let client = Client::try_from(config).map_err(|error| Error::Kubeconfig(root_cause(&error)))?;
        Ok(Self { client, url, namespace, again })
    }

    /// The same cluster, in another namespace.
    pub(crate) fn in_namespace(mut self, namespace: &str, options: &Options) -> Self {
        namespace.clone_into(&mut self.namespace);
        self.again = options.again(namespace);
        self
    }

    /// The client for calls that have no name here.
    pub(super) fn client(&self) -> Client {
        self.client.clone()
    }

    /// Waits for an answer, not for ever, and says what was asked if there is none.
    pub(super) async fn call<T>(
        &self,
        asked: &Asked,
        answer: impl Future<Output = Result<T, kube::Error>>,
    ) -> Result<T, Error> {
        match tokio::time::timeout(API_TIMEOUT, answer).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(error)) => Err(Error::new(asked, &self.url, &self.namespace, error)),
            Err(_) => Err(Error::Timeout { url: self.url.clone(), asked: asked.text() }),
        }
    }
}

async fn configuration(options: &Options) -> Result<Config, Error> {
    let read = match &options.kubeconfig {
        Some(file) => Kubeconfig::read_from(file),
        None => Kubeconfig::read(),
    };
    let kubeconfig = match read {
        Ok(kubeconfig) => kubeconfig,
        Err(error) => return without_file(options, &error),
    };
    let known = || kubeconfig.contexts.iter().map(|context| context.name.clone()).collect::<Vec<_>>();
    let wanted = options.context.clone().or_else(|| kubeconfig.current_context.clone()).filter(|name| !name.is_empty());
    let Some(wanted) = wanted else { return Err(Error::NoCurrentContext(known())) };
    if kubeconfig.contexts.iter().all(|context| context.name != wanted) {
        return Err(Error::NoContext { wanted, known: known() });
    }
    let chosen = KubeConfigOptions { context: Some(wanted), ..KubeConfigOptions::default() };
    let config = Config::from_custom_kubeconfig(kubeconfig, &chosen).await;
    config.map_err(|error| Error::Kubeconfig(error.to_string()))
}

/// In a pod there is another way to find the API server.
fn without_file(options: &Options, error: &KubeconfigError) -> Result<Config, Error> {
    let missing = match error {
        KubeconfigError::FindPath => true,
        KubeconfigError::ReadConfig(source, _) => source.kind() == std::io::ErrorKind::NotFound,
        _ => return Err(Error::Kubeconfig(error.to_string())),
    };
    let is_named = options.kubeconfig.is_some() || options.context.is_some();
    match Config::incluster() {
        Ok(config) if missing && !is_named => Ok(config),
        _ => Err(Error::NoKubeconfig(error.to_string())),
    }
}
