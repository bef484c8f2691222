//! The node itself: pods run, find each other by name, keep what they write in volumes, and Pod Security is enforced. Needs
//! only the small image of the harness, and is skipped where that is not there.

use std::time::Duration;

use anyhow::ensure;
use tandem_e2e_kubernetes::POD_IMAGE;

use crate::kube::{Namespace, eventually, test};

const SOON: Duration = Duration::from_secs(90);
const RESTRICTED: &str = "pod-security.kubernetes.io/enforce=restricted";
/// What Pod Security calls restricted.
const CONTEXT: &str = "securityContext: {runAsNonRoot: true, allowPrivilegeEscalation: false, readOnlyRootFilesystem: true, \
                       capabilities: {drop: [ALL]}, seccompProfile: {type: RuntimeDefault}}";

fn pod(name: &str, arguments: &str, rest: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}, labels: {{app: {name}}}}}\nspec:\n  restartPolicy: Never\n  \
         terminationGracePeriodSeconds: 1\n  containers:\n    - name: pod\n      image: {POD_IMAGE}\n      \
         imagePullPolicy: Never\n      args: {arguments}\n      {CONTEXT}\n{rest}"
    )
}

fn await_phase(namespace: &Namespace, name: &str, wanted: &str) -> anyhow::Result<()> {
    eventually(&format!("{name} {wanted}"), SOON, || {
        let pod = namespace.get(&["pod", name])?;
        ensure!(pod["status"]["phase"] == wanted, "{}", pod["status"]);
        Ok(())
    })
}

fn ours() -> bool {
    std::env::var("TANDEM_E2E_OURS").is_ok_and(|name| !name.is_empty())
}

#[test]
fn pods_find_each_other_by_the_name_of_a_service() -> anyhow::Result<()> {
    if !ours() {
        return Ok(());
    }
    test("names", &[RESTRICTED], |namespace| {
        namespace.apply(&pod("server", "[serve, \"0.0.0.0:8080\"]", ""))?;
        namespace.apply(
            "apiVersion: v1\nkind: Service\nmetadata: {name: server}\nspec:\n  selector: {app: server}\n  \
             ports: [{port: 80, targetPort: 8080}]\n",
        )?;
        await_phase(namespace, "server", "Running")?;
        // The name and its address take a moment to be known everywhere.
        let client =
            pod("client", "[get, \"http://server/\"]", "").replace("Never\n  termination", "OnFailure\n  termination");
        namespace.apply(&client)?;
        await_phase(namespace, "client", "Succeeded")?;
        let answer = namespace.kubectl(&["logs", "client"])?;
        ensure!(answer == "server", "{answer}");
        Ok(())
    })
}

#[test]
fn what_is_written_into_a_volume_is_there_for_the_next_pod() -> anyhow::Result<()> {
    if !ours() {
        return Ok(());
    }
    let mounted = "      volumeMounts: [{name: data, mountPath: /data}]\n  \
                   volumes: [{name: data, persistentVolumeClaim: {claimName: data}}]\n";
    test("volumes", &[RESTRICTED], |namespace| {
        namespace.apply(
            "apiVersion: v1\nkind: PersistentVolumeClaim\nmetadata: {name: data}\nspec:\n  \
             accessModes: [ReadWriteOnce]\n  resources: {requests: {storage: 1Gi}}\n",
        )?;
        namespace.apply(&pod("writer", "[write, /data/file, kept]", mounted))?;
        await_phase(namespace, "writer", "Succeeded")?;
        namespace.apply(&pod("reader", "[read, /data/file]", mounted))?;
        await_phase(namespace, "reader", "Succeeded")?;
        let text = namespace.kubectl(&["logs", "reader"])?;
        ensure!(text == "kept", "{text}");
        Ok(())
    })
}

#[test]
fn a_pod_that_is_not_restricted_is_refused_where_that_is_enforced() -> anyhow::Result<()> {
    if !ours() {
        return Ok(());
    }
    test("security", &[RESTRICTED], |namespace| {
        let open = pod("open", "[wait]", "").replace(CONTEXT, "securityContext: {privileged: true}");
        let refused = namespace.apply(&open).expect_err("a privileged pod was let in");
        ensure!(format!("{refused:#}").contains("violates PodSecurity"), "{refused:#}");
        Ok(())
    })
}

#[test]
fn what_a_killed_command_leaves_behind_is_taken_down() -> anyhow::Result<()> {
    if !ours() || !crate::kube::is_enabled() {
        return Ok(());
    }
    let directory = tempfile::tempdir()?;
    let cluster = |arguments: &[&str]| -> anyhow::Result<std::process::Command> {
        let mut command = crate::site::built("tandem-cluster")?;
        command.args(["--name", "crash"]).args(arguments);
        Ok(command)
    };
    let log = directory.path().join("log");
    let mut up = cluster(&["up", "--directory"])?;
    up.arg(directory.path().join("node")).stderr(std::fs::File::create(&log)?).stdout(std::process::Stdio::null());
    let mut up = up.spawn()?;
    let begun = eventually("containers", SOON, || {
        let text = std::fs::read_to_string(&log)?;
        ensure!(text.contains("name resolution"), "{text}");
        Ok(())
    });
    up.kill()?;
    up.wait()?;
    begun?;
    ensure!(cluster(&["down"])?.status()?.success(), "it could not be taken down");
    let mounts = std::fs::read_to_string("/proc/self/mounts")?;
    let places = ["/run/tandem-kubernetes/crash".to_owned(), directory.path().display().to_string()];
    let mounts: Vec<&str> = mounts.lines().filter(|line| places.iter().any(|place| line.contains(place))).collect();
    ensure!(mounts.is_empty(), "mounts are left: {mounts:?}");
    ensure!(!std::path::Path::new("/run/netns/tandem-crash").exists(), "the network namespace is left");
    ensure!(!std::path::Path::new("/run/tandem-kubernetes/crash").exists(), "it is still registered");
    ensure!(!cluster(&["status"])?.status()?.success(), "it still has a status");
    Ok(())
}
