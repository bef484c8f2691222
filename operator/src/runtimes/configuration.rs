//! The configuration file of the runtime's pods.

use serde_json::{Value, json};
use tandem_crds::resources::FunctionRuntimeSpec;
use tandem_crds::resources::runtime::Tikv;

use crate::names::{
    ADMIN_PORT, BUNDLE_KEY, DATA_DIRECTORY, INGRESS_PORT, PEER_PORT, TIKV_TLS_DIRECTORY, TOPOLOGY_DIRECTORY,
};

/// `apiVersion` of the file: older runtimes refuse what they do not know.
const API_VERSION: &str = "config.tandem.dev/v1alpha1";
/// Longest prefix of keys.
const PREFIX_BYTES_MAX: usize = 64;

/// The file, as YAML.
pub fn configuration(namespace: &str, name: &str, spec: &FunctionRuntimeSpec) -> String {
    let mut listen = json!({"http": format!("0.0.0.0:{INGRESS_PORT}"), "admin": format!("0.0.0.0:{ADMIN_PORT}")});
    let store = match &spec.store.tikv {
        Some(store) => {
            listen["peer"] = format!("0.0.0.0:{PEER_PORT}").into();
            json!({"tikv": tikv(namespace, name, store)})
        }
        None => json!({"embedded": {"directory": DATA_DIRECTORY}}),
    };
    let file = json!({
        "apiVersion": API_VERSION,
        "kind": "RuntimeConfiguration",
        "store": store,
        "listen": listen,
        "topology": {"bundle": format!("{TOPOLOGY_DIRECTORY}/{BUNDLE_KEY}")},
        "telemetry": {"logFormat": "Json"},
    });
    // JSON is YAML, too: should the writer of YAML fail, nothing is lost.
    serde_saphyr::to_string(&file).unwrap_or_else(|_| file.to_string())
}

fn tikv(namespace: &str, name: &str, store: &Tikv) -> Value {
    let mut tikv = json!({"endpoints": store.endpoints, "prefix": prefix(namespace, name, store)});
    if let Some(keyspace) = &store.keyspace {
        tikv["keyspace"] = keyspace.as_str().into();
    }
    if let Some(history) = &store.history {
        tikv["history"] = history.0.as_str().into();
    }
    if store.tls_secret_name.is_some() {
        let file = |name: &str| format!("{TIKV_TLS_DIRECTORY}/{name}");
        tikv["tls"] = json!({"ca": file("ca.crt"), "cert": file("tls.crt"), "key": file("tls.key")});
    }
    tikv
}

/// What all keys begin with: what the spec says, or a name that no other runtime of the cluster has.
pub fn prefix(namespace: &str, name: &str, store: &Tikv) -> String {
    let own = || {
        let full = format!("{namespace}/{name}");
        let digest = crate::child::digest(full.as_bytes());
        if full.len() <= PREFIX_BYTES_MAX { full } else { digest }
    };
    store.prefix.clone().unwrap_or_else(own)
}
