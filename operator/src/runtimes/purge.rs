//! What is deleted with a runtime: everything that it has stored, if its deletion policy says so.
//!
//! A finalizer keeps the resource until that is done: its pods are ended, then a Job removes all rows from TiKV, or the
//! claim of the embedded store's volume is deleted. Each step looks at what there is, so that an operator that ends between
//! any two of them does no harm.
//!
//! What the Job needs, and the Job itself, belong to nobody: where the resource is deleted with its children first
//! (`--cascade=foreground`, as Argo CD does), the garbage collector would take them away again and again. They are removed here.
//!
//! **Invariant:** without the finalizer nothing that is stored is ever removed; the policy may be changed to the last moment.

use std::collections::BTreeSet;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::ResourceExt;
use serde_json::{Value, json};
use tandem_crds::resources::function::DeletionPolicy;
use tandem_crds::resources::{FunctionRuntime, FunctionRuntimeSpec};
use tracing::{info, warn};

use crate::child::{Child, ChildKind, Owner, Workload, digest};
use crate::conditions::Finding;
use crate::context::Context;
use crate::diagnosis;
use crate::failure;
use crate::key::ObjectKey;
use crate::kubeapi::Error;
use crate::names::{
    CONFIGURATION_DIRECTORY, CONFIGURATION_KEY, FINALIZER, PURGE, RUNTIME_USER, TIKV_TLS_DIRECTORY, annotation, label,
};
use crate::pod_template::{self, Pod};
use crate::pods::Reports;
use crate::queue::Outcome;
use crate::reasons;
use crate::runtimes::build::{account_name, basis, configuration_name};
use crate::runtimes::configuration::{configuration, prefix};
use crate::runtimes::{UNSETTLED_PERIOD, write_status};
use crate::world::{Held, PodView};

/// Restarts of the Job's container. It is tried until it succeeds, or until somebody changes the policy: the node waits up to
/// five minutes between two attempts.
const BACKOFF_LIMIT: i32 = i32::MAX;

/// Longest name of a Job.
const JOB_NAME_BYTES_MAX: usize = 63;

/// Name of the Job.
pub fn job_name(runtime: &str) -> String {
    let name = format!("{runtime}-{PURGE}");
    if name.len() <= JOB_NAME_BYTES_MAX { name } else { format!("{PURGE}-{}", digest(runtime.as_bytes())) }
}

/// Name of the claim of the embedded store's volume, as a StatefulSet makes it.
fn claim_name(runtime: &str) -> String {
    format!("data-{runtime}-0")
}

fn is_guarded(metadata: &ObjectMeta) -> bool {
    metadata.finalizers.iter().flatten().any(|finalizer| finalizer == FINALIZER)
}

/// Has the finalizer on a runtime whose state is deleted with it, and on no other.
pub async fn follow_policy(context: &Context, key: &ObjectKey, held: &Held<FunctionRuntime>) -> Result<(), Error> {
    let Some(runtime) = held.good() else { return Ok(()) };
    let is_wanted = runtime.spec.deletion_policy == DeletionPolicy::Delete;
    if is_wanted == is_guarded(held.metadata()) {
        return Ok(());
    }
    guard(context, key, held.metadata(), is_wanted).await
}

async fn guard(context: &Context, key: &ObjectKey, metadata: &ObjectMeta, is_wanted: bool) -> Result<(), Error> {
    let mut finalizers: Vec<String> = metadata.finalizers.clone().unwrap_or_default();
    finalizers.retain(|finalizer| finalizer != FINALIZER);
    if is_wanted {
        finalizers.push(FINALIZER.to_owned());
    }
    context.metrics.write(key.kind.name(), "finalizers");
    let version = metadata.resource_version.as_deref().unwrap_or_default();
    context.writer.finalizers(key, version, &finalizers).await
}

/// How far the removal is.
enum Step {
    /// Nothing is left.
    Done,
    /// It goes on when something changes, or is looked at again.
    Waits(Finding),
}

/// Brings the deletion of a runtime to its end.
pub async fn reconcile(context: &Context, key: &ObjectKey, held: &Held<FunctionRuntime>) -> Result<Outcome, Error> {
    // What is known of it may lag behind: nothing must be made for it again.
    let is_released = context.released.lock().get(key).is_some_and(|uid| uid == held.uid());
    if is_released || !is_guarded(held.metadata()) {
        return Ok(Outcome::Done);
    }
    let owner = Owner { key: key.clone(), uid: held.uid().to_owned() };
    let step = match held.good() {
        None => Ok(Step::Waits(Finding::new(&reasons::UNREADABLE, UNREADABLE))),
        Some(runtime) if runtime.spec.deletion_policy == DeletionPolicy::Retain => {
            info!(%key, "state is kept");
            Ok(Step::Done)
        }
        Some(runtime) => step(context, &owner, &runtime.spec).await,
    };
    let finding = match &step {
        Ok(Step::Done) => return release(context, key, held).await,
        // Nothing can be made in a namespace that is being deleted, and nobody wants it to be there for ever.
        Err(Error::Gone { message, .. }) => {
            warn!(%key, reason = message, "state in TiKV is kept, because the namespace is being deleted");
            return release(context, key, held).await;
        }
        Ok(Step::Waits(finding)) => finding.clone(),
        Err(error) => failure::finding(error),
    };
    let graph = context.world.graph(&key.namespace).unwrap_or_default();
    write_status(context, key, held, &graph, Some(finding)).await?;
    step?;
    Ok(Outcome::After(UNSETTLED_PERIOD))
}

/// Removes what the purge has needed, and lets the resource go.
async fn release(context: &Context, key: &ObjectKey, held: &Held<FunctionRuntime>) -> Result<Outcome, Error> {
    context.apply(key, &[], &BTreeSet::new()).await?;
    guard(context, key, held.metadata(), false).await?;
    context.released.lock().insert(key.clone(), held.uid().to_owned());
    Ok(Outcome::Done)
}

/// Ends the purge of a runtime that is gone, because somebody has removed the finalizer.
pub async fn abandoned(context: &Context, key: &ObjectKey) -> Result<Outcome, Error> {
    context.released.lock().remove(key);
    // Without a Job there is no purge, and whatever is there still belongs to the resource: that is for others to remove.
    if context.world.children.of(key).keys().any(|(kind, _)| *kind == ChildKind::Job) {
        warn!(%key, "the purge is given up, because the resource is gone");
        context.apply(key, &[], &BTreeSet::new()).await?;
    }
    Ok(Outcome::Done)
}

/// Without an owner.
fn free(mut child: Child) -> Child {
    if let Some(metadata) = child.object["metadata"].as_object_mut() {
        metadata.remove("ownerReferences");
    }
    child
}

const UNREADABLE: &str = "it cannot be read whether its state is to be deleted: make the definitions and the operator \
                          the same version, or remove the finalizer, which keeps the state";

async fn step(context: &Context, owner: &Owner, spec: &FunctionRuntimeSpec) -> Result<Step, Error> {
    let key = &owner.key;
    let file = configuration(&key.namespace, &key.name, spec);
    let basis = basis(owner, &file).map(free);
    let job = spec.store.tikv.is_some().then(|| job(owner, spec, &context.settings.runtime_image, &file));
    let kept: BTreeSet<_> = job.iter().map(|job| (job.kind, job.name.to_string())).collect();
    // Ends the pods: everything goes but what the Job needs.
    context.apply(key, &basis, &kept).await?;
    let (purging, running): (Vec<_>, Vec<_>) = context.world.pods.of(key).into_iter().partition(|pod| pod.is_purge);
    if !running.is_empty() {
        let message = format!("{} of its pods are still there; then its state is removed", running.len());
        return Ok(Step::Waits(Finding::new(&reasons::DELETING, message)));
    }
    match job {
        Some(job) => match shared_with(context, key, spec) {
            None => purge(context, owner, &job, &purging).await,
            Some(other) => {
                let message =
                    format!("{other} has the same prefix in TiKV: set deletionPolicy to Retain, or delete it first");
                Ok(Step::Waits(Finding::new(&reasons::PURGE_FAILED, message)))
            }
        },
        None if spec.store.embedded.as_ref().is_some_and(|embedded| embedded.volume.is_some()) => {
            remove_claim(context, key).await
        }
        None => Ok(Step::Done),
    }
}

/// Another runtime that keeps its state in the same place.
fn shared_with(context: &Context, key: &ObjectKey, spec: &FunctionRuntimeSpec) -> Option<String> {
    let place = |namespace: &str, name: &str, spec: &FunctionRuntimeSpec| {
        let tikv = spec.store.tikv.as_ref()?;
        Some((prefix(namespace, name, tikv), tikv.keyspace.clone()))
    };
    let own = place(&key.namespace, &key.name, spec);
    let runtimes = &context.world.runtimes;
    let mut others = runtimes.known(None).into_iter().filter(|(namespace, name)| {
        let is_own = *namespace == key.namespace && *name == key.name;
        let other = runtimes.get(namespace, name).filter(|other| !is_own && !other.is_deleting());
        other.is_some_and(|other| other.good().is_some_and(|runtime| place(namespace, name, &runtime.spec) == own))
    });
    others.next().map(|(namespace, name)| format!("FunctionRuntime {namespace}/{name}"))
}

/// Has the Job run to its end.
async fn purge(context: &Context, owner: &Owner, job: &Child, pods: &[PodView]) -> Result<Step, Error> {
    let key = &owner.key;
    let removing = || Step::Waits(Finding::new(&reasons::DELETING, "its pods have ended; a Job removes its state"));
    let live = context.world.children.of(key).get(&(job.kind, job.name.clone())).cloned();
    if let Some(live) = live {
        if live.is_deleting {
            return Ok(removing());
        }
        // Of an earlier resource of the same name, or with another image: a Job cannot be changed.
        if *live.digest != *job.digest() || live.marks != job.marks() {
            context.metrics.write(job.kind.kind(), "delete");
            context.writer.delete(job.kind, &key.namespace, &job.name, &live.uid).await?;
            context.world.children.forget(key, job.kind, &job.name);
            return Ok(removing());
        }
        if live.workload.as_ref().is_some_and(|workload| workload.succeeded > 0) {
            info!(%key, "state is removed");
            return Ok(Step::Done);
        }
        return Ok(Step::Waits(
            trouble(context, key, job, pods).await.unwrap_or_else(|| progress(live.workload.as_ref())),
        ));
    }
    context.apply_one(key, job).await?;
    Ok(removing())
}

fn progress(workload: Option<&Workload>) -> Finding {
    if workload.is_some_and(|workload| workload.failed > 0) {
        let message = "the Job has failed, and its pod is gone: delete the Job, and it is made again";
        return Finding::new(&reasons::PURGE_FAILED, message);
    }
    Finding::new(&reasons::DELETING, "its pods have ended; a Job removes its state")
}

/// Why the Job does not come to its end.
async fn trouble(context: &Context, key: &ObjectKey, job: &Child, pods: &[PodView]) -> Option<Finding> {
    let failed = pods.iter().flat_map(|pod| &pod.containers).find(|one| one.exit_code.is_some_and(|code| code != 0));
    if let Some(failed) = failed {
        let why = failed.said.as_deref().unwrap_or("see the logs of the Job");
        let message =
            format!("{why}; it is tried again, and removing the finalizer {FINALIZER} gives up and keeps the state");
        return Some(Finding::new(&reasons::PURGE_FAILED, message));
    }
    let mut workload = Workload::default();
    if pods.is_empty() {
        let failure = context.writer.creation_failure(job.kind, &key.namespace, &job.name).await;
        workload.failure = failure.ok().flatten().map(Into::into);
    }
    diagnosis::diagnose(pods, &workload, &Reports::default(), (context.clock)())
}

/// Deletes the claim of the embedded store's volume, and waits until it is gone: a runtime of the same name must not find it.
async fn remove_claim(context: &Context, key: &ObjectKey) -> Result<Step, Error> {
    let name = claim_name(&key.name);
    let Some(claim) = context.writer.claim(&key.namespace, &name).await? else { return Ok(Step::Done) };
    if claim.labels().get(label::INSTANCE).is_none_or(|instance| **instance != *key.name) {
        info!(%key, claim = name, "the claim belongs to somebody else, and stays");
        return Ok(Step::Done);
    }
    if claim.metadata.deletion_timestamp.is_none() {
        context.metrics.write("PersistentVolumeClaim", "delete");
        let uid = claim.metadata.uid.as_deref().unwrap_or_default();
        context.writer.delete_claim(&key.namespace, &name, uid).await?;
    }
    let message = format!("its pod has ended; PersistentVolumeClaim {name} is being deleted");
    Ok(Step::Waits(Finding::new(&reasons::DELETING, message)))
}

/// The Job that removes everything that the runtime has in TiKV. Pure.
pub fn job(owner: &Owner, spec: &FunctionRuntimeSpec, usual_image: &str, file: &str) -> Child {
    let name = &*owner.key.name;
    let image = spec.image.as_deref().unwrap_or(usual_image);
    let mut pod = Pod::new(owner, PURGE, selector(owner), spec.pod_template.as_ref());
    // Another configuration makes another Job: one that cannot reach its store may be given another way.
    pod.annotate(annotation::CONFIGURATION, &digest(file.as_bytes()));
    pod.annotate(annotation::OWNER, &owner.uid);
    let mut mounts = vec![json!({"name": "configuration", "mountPath": CONFIGURATION_DIRECTORY, "readOnly": true})];
    let mut volumes = vec![json!({"name": "configuration", "configMap": {"name": configuration_name(name)}})];
    if let Some(secret) = spec.store.tikv.as_ref().and_then(|tikv| tikv.tls_secret_name.as_deref()) {
        mounts.push(json!({"name": "tikv-tls", "mountPath": TIKV_TLS_DIRECTORY, "readOnly": true}));
        volumes.push(json!({"name": "tikv-tls", "secret": {"secretName": secret}}));
    }
    let mut container = json!({
        "name": PURGE,
        "image": image,
        "args": ["purge", format!("--config={CONFIGURATION_DIRECTORY}/{CONFIGURATION_KEY}")],
        "securityContext": pod_template::container_security(),
        // What it says last is what its resource says then.
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "volumeMounts": mounts,
    });
    if let Some(resources) = &spec.resources {
        container["resources"] = json!(resources);
    }
    let mut template = json!({
        "restartPolicy": "OnFailure",
        "serviceAccountName": account_name(name),
        "automountServiceAccountToken": false,
        "enableServiceLinks": false,
        "securityContext": pod_template::pod_security(Some(RUNTIME_USER)),
        "containers": [container],
        "volumes": volumes,
    });
    let job = json!({"backoffLimit": BACKOFF_LIMIT, "template": pod.complete(&mut template)});
    free(owner.child(ChildKind::Job, &job_name(name), PURGE, json!({"spec": job})))
}

fn selector(owner: &Owner) -> Value {
    let labels = owner.labels(PURGE);
    let kept = [label::NAME, label::INSTANCE, label::COMPONENT];
    kept.iter()
        .map(|key| ((*key).to_owned(), labels.get(*key).cloned().unwrap_or_default()))
        .collect::<serde_json::Map<_, _>>()
        .into()
}
