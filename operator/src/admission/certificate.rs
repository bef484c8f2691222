//! The certificate of the webhook: the operator signs it itself, keeps it in a Secret that all its pods share, tells the API
//! server whom to trust, and makes a new one long before it ends.
//!
//! **Invariant:** the API server is told of an authority before a certificate of it is served for long: a pod serves what
//! the Secret holds, and whoever writes the Secret writes the configuration too. Between the two the webhook is not
//! believed, and resources are let in without it.

use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::ByteString;
use k8s_openapi::api::admissionregistration::v1::ValidatingWebhookConfiguration;
use k8s_openapi::api::core::v1::Secret;
use kube::Client;
use kube::api::{Api, Patch, PatchParams, PostParams};
use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair};
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::json;
use tokio::sync::watch;
use tracing::{info, warn};

use super::Settings;
use crate::names::FIELD_MANAGER;

/// How long a certificate is good for.
const LIFETIME: SignedDuration = SignedDuration::from_hours(90 * 24);
/// A new one is made when so much of it is left.
const RENEWED_BEFORE_END: SignedDuration = SignedDuration::from_hours(30 * 24);
/// Clocks of machines differ.
const VALID_BEFORE_NOW: SignedDuration = SignedDuration::from_hours(1);
/// How often it is looked at.
const LOOK_EVERY: Duration = Duration::from_mins(10);
/// The same after something went wrong.
const LOOK_AGAIN: Duration = Duration::from_secs(5);
/// Keys of the Secret: those of type `kubernetes.io/tls`, and the end.
const CERTIFICATE_KEY: &str = "tls.crt";
const PRIVATE_KEY: &str = "tls.key";
const END_KEY: &str = "end";

/// What a server needs.
pub type Keys = Arc<ServerConfig>;

/// Why there is no certificate.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It cannot be made.
    #[error("failed to sign the certificate of the webhook")]
    Sign(#[from] rcgen::Error),
    /// It cannot be used.
    #[error("failed to use the certificate of the webhook")]
    Use(#[from] rustls::Error),
    /// What is in the Secret is no certificate.
    #[error("the certificate of the webhook is damaged: {0}")]
    Damaged(String),
    /// The API server says no.
    #[error("failed to keep the certificate of the webhook")]
    Api(#[from] Box<kube::Error>),
}

impl From<kube::Error> for Error {
    fn from(error: kube::Error) -> Self {
        Self::Api(Box::new(error))
    }
}

/// A certificate and its key, PEM, and when it ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Certificate {
    /// It signs itself, so it is its own authority.
    pub certificate: String,
    /// Its key.
    pub key: String,
    /// When it ends.
    pub end: Timestamp,
}

impl Certificate {
    /// A new one for the Service of that name.
    pub fn new(service: &str, namespace: &str, now: Timestamp) -> Result<Self, Error> {
        let names = [format!("{service}.{namespace}.svc"), format!("{service}.{namespace}.svc.cluster.local")];
        let mut parameters = CertificateParams::new(names)?;
        let mut name = DistinguishedName::new();
        name.push(DnType::CommonName, format!("{service}.{namespace}.svc"));
        parameters.distinguished_name = name;
        let end = now + LIFETIME;
        parameters.not_before = (std::time::SystemTime::from(now - VALID_BEFORE_NOW)).into();
        parameters.not_after = (std::time::SystemTime::from(end)).into();
        let key = KeyPair::generate()?;
        let certificate = parameters.self_signed(&key)?.pem();
        Ok(Self { certificate, key: key.serialize_pem(), end })
    }

    /// Whether it has to be replaced.
    pub fn is_old(&self, now: Timestamp) -> bool {
        self.end - RENEWED_BEFORE_END <= now
    }

    /// What a server needs to serve it.
    pub fn keys(&self) -> Result<Keys, Error> {
        let damaged = |error: rustls::pki_types::pem::Error| Error::Damaged(error.to_string());
        let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(self.certificate.as_bytes()).collect();
        let key = PrivateKeyDer::from_pem_slice(self.key.as_bytes()).map_err(damaged)?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
        let mut keys = builder.with_no_client_auth().with_single_cert(chain.map_err(damaged)?, key)?;
        keys.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Arc::new(keys))
    }

    fn read(secret: &Secret) -> Option<Self> {
        let data = secret.data.as_ref()?;
        let text = |key: &str| String::from_utf8(data.get(key)?.0.clone()).ok();
        let end = text(END_KEY)?.parse().ok()?;
        Some(Self { certificate: text(CERTIFICATE_KEY)?, key: text(PRIVATE_KEY)?, end })
    }

    fn secret(&self, name: &str, version: Option<String>) -> Secret {
        let bytes = |text: &str| ByteString(text.as_bytes().to_vec());
        let end = self.end.to_string();
        let data = [(CERTIFICATE_KEY, &self.certificate), (PRIVATE_KEY, &self.key), (END_KEY, &end)];
        let mut secret = Secret {
            data: Some(data.into_iter().map(|(key, text)| (key.to_owned(), bytes(text))).collect()),
            type_: Some("kubernetes.io/tls".to_owned()),
            ..Secret::default()
        };
        secret.metadata.name = Some(name.to_owned());
        secret.metadata.resource_version = version;
        secret
    }
}

/// Keeps the certificate.
pub struct Keeper {
    client: Client,
    settings: Settings,
}

impl Keeper {
    /// A keeper for the webhook of these settings.
    pub fn new(client: Client, settings: Settings) -> Self {
        Self { client, settings }
    }

    /// Hands the certificate over, and each one that follows it. Ends when nobody takes it any more.
    pub async fn keep(self, keys: watch::Sender<Option<Keys>>) {
        let mut served: Option<Certificate> = None;
        loop {
            let pause = match self.look(Timestamp::now()).await {
                Ok(certificate) if served.as_ref() == Some(&certificate) => LOOK_EVERY,
                Ok(certificate) => match certificate.keys() {
                    Ok(new) => {
                        info!(end = %certificate.end, "the webhook has a certificate");
                        keys.send_replace(Some(new));
                        served = Some(certificate);
                        LOOK_EVERY
                    }
                    Err(error) => self.tell(&error),
                },
                Err(error) => self.tell(&error),
            };
            tokio::select! {
                () = keys.closed() => return,
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    fn tell(&self, error: &Error) -> Duration {
        warn!(error = %error, cause = ?std::error::Error::source(error).map(ToString::to_string), webhook = self.settings.name, "no certificate");
        LOOK_AGAIN
    }

    /// The certificate of the Secret, made anew if it is old, and told to the API server.
    async fn look(&self, now: Timestamp) -> Result<Certificate, Error> {
        let Settings { name, namespace, .. } = &self.settings;
        let secrets: Api<Secret> = Api::namespaced(self.client.clone(), namespace);
        let found = secrets.get_opt(name).await?;
        let known = found.as_ref().and_then(Certificate::read).filter(|known| !known.is_old(now));
        let certificate = match (known, found) {
            (Some(known), _) => known,
            (None, None) => {
                let new = Certificate::new(name, namespace, now)?;
                // Of two pods that make one at once, the API server takes one; the other reads it at the next look.
                secrets.create(&PostParams::default(), &new.secret(name, None)).await?;
                new
            }
            (None, Some(old)) => {
                let new = Certificate::new(name, namespace, now)?;
                let secret = new.secret(name, old.metadata.resource_version);
                secrets.patch(name, &PatchParams::default(), &Patch::Merge(&secret)).await?;
                new
            }
        };
        self.tell_whom_to_trust(&certificate).await?;
        Ok(certificate)
    }

    async fn tell_whom_to_trust(&self, certificate: &Certificate) -> Result<(), Error> {
        let configurations: Api<ValidatingWebhookConfiguration> = Api::all(self.client.clone());
        let configuration = configurations.get(&self.settings.name).await?;
        let bundle = ByteString(certificate.certificate.as_bytes().to_vec());
        let webhooks = configuration.webhooks.unwrap_or_default();
        if webhooks.iter().all(|webhook| webhook.client_config.ca_bundle.as_ref() == Some(&bundle)) {
            return Ok(());
        }
        // Only these fields are the operator's; the rest is the chart's. Webhooks merge by their names.
        let webhooks: Vec<_> = webhooks
            .iter()
            .map(|webhook| json!({"name": webhook.name, "clientConfig": {"caBundle": bundle}}))
            .collect();
        let patch = json!({"webhooks": webhooks});
        let parameters = PatchParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PatchParams::default() };
        configurations.patch(&self.settings.name, &parameters, &Patch::Strategic(patch)).await?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn now() -> Timestamp {
        "2026-11-22T12:00:00Z".parse().expect("it is a time")
    }

    #[test]
    fn a_certificate_survives_its_secret_and_can_be_served() {
        let made = Certificate::new("tandem-webhook", "tandem-system", now()).expect("it can be signed");
        let secret = made.secret("tandem-webhook", None);
        assert_eq!(Certificate::read(&secret), Some(made.clone()));
        made.keys().expect("it can be served");
        let other = Certificate::new("tandem-webhook", "tandem-system", now()).expect("it can be signed");
        assert_ne!(other.key, made.key);
    }

    #[test]
    fn it_is_replaced_long_before_its_end() {
        let made = Certificate::new("a", "b", now()).expect("it can be signed");
        let days = |days: i64| now() + SignedDuration::from_hours(days * 24);
        assert!(!made.is_old(now()) && !made.is_old(days(59)));
        assert!(made.is_old(days(60)) && made.is_old(days(91)));
    }

    #[test]
    fn what_is_damaged_is_an_error() {
        let made = Certificate::new("a", "b", now()).expect("it can be signed");
        let damaged = Certificate { key: "nonsense".to_owned(), ..made.clone() };
        assert!(matches!(damaged.keys(), Err(Error::Damaged(_))));
        let mut secret = made.secret("a", None);
        secret.data = None;
        assert_eq!(Certificate::read(&secret), None);
    }
}
