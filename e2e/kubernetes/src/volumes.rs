//! Volumes for claims: directories of the node, laid out before anybody asks. A volume is used once; a claim that is made
//! again after its volume was released takes another one.

use std::fs;
use std::ops::Range;
use std::os::unix::fs::PermissionsExt;

use serde_json::json;

use crate::Error;
use crate::cluster::Cluster;
use crate::commands::run_with_input;

/// What each claims to hold; nobody enforces it.
const CAPACITY: &str = "10Gi";
/// Processes in pods are not root, and not all of them have a group that the kubelet could give the directory.
const OPEN_MODE: u32 = 0o777;

/// Makes the volumes of these numbers.
pub fn lay_out(cluster: &Cluster, numbers: Range<u16>) -> Result<(), Error> {
    let mut volumes = Vec::new();
    for number in numbers {
        let directory = cluster.place.file(&format!("data/volumes/{number}"));
        let attempted = format!("create {}", directory.display());
        let made = fs::create_dir_all(&directory);
        let open = made.and_then(|()| fs::set_permissions(&directory, fs::Permissions::from_mode(OPEN_MODE)));
        open.map_err(Error::io(attempted))?;
        volumes.push(json!({
            "apiVersion": "v1",
            "kind": "PersistentVolume",
            "metadata": {"name": format!("volume-{number}")},
            "spec": {
                "accessModes": ["ReadWriteOnce"],
                "capacity": {"storage": CAPACITY},
                "local": {"path": directory},
                "nodeAffinity": {"required": {"nodeSelectorTerms": [{"matchExpressions": [
                    {"key": "kubernetes.io/hostname", "operator": "In", "values": [cluster.place.node()]},
                ]}]}},
                "persistentVolumeReclaimPolicy": "Retain",
                "storageClassName": "standard",
            },
        }));
    }
    if volumes.is_empty() {
        return Ok(());
    }
    let list = json!({"apiVersion": "v1", "kind": "List", "items": volumes});
    run_with_input(cluster.kubectl().args(["apply", "-f", "-"]), list.to_string().as_bytes()).map(drop)
}
