//! Every reason that a condition can have. The page `conditions.md` is made from this.
//!
//! A reason is never reused for something else: people and programs look for it.

/// Why a condition is as it is.
#[derive(Debug, PartialEq, Eq)]
pub struct Reason {
    /// The word in `status.conditions[].reason`.
    pub name: &'static str,
    /// What it means for `Ready`, `Reconciling` and `Stalled`.
    pub effect: Effect,
    /// What it means, in full sentences.
    pub meaning: &'static str,
    /// What to do.
    pub advice: &'static str,
}

/// What a reason means for the three conditions, as kstatus reads them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// `Ready=True`: all is well.
    Ready,
    /// `Ready=False` and `Reconciling=True`: it moves, or waits for something that may still come.
    Moving,
    /// `Ready=False` alone: it waits for somebody else; nothing is known to be wrong for ever.
    Waiting,
    /// `Ready=False` and `Stalled=True`: as it is, it can never work.
    Stalled,
}

macro_rules! reasons {
    ($($name:ident = $effect:ident $text:literal, $meaning:literal, $advice:literal;)+) => {
        $(#[doc = $meaning] pub static $name: Reason =
            Reason { name: $text, effect: Effect::$effect, meaning: $meaning, advice: $advice };)+
        /// All reasons, in the order of the documentation.
        pub static ALL: &[&Reason] = &[$(&$name),+];
    };
}

reasons! {
    READY = Ready "Ready", "Everything that the resource asks for is there and works.", "Nothing.";
    PROBLEMS_ELSEWHERE = Ready "ProblemsElsewhere", "The runtime serves what is right. Some resources of the namespace have problems and are left out, or serve their last good spec.", "Look at `status.problems`: every entry names its resource, which says the same in its own status.";
    PREVIOUS_REVISION = Ready "PreviousRevision", "A new revision of the function is on its way; the previous one serves meanwhile.", "Wait; `status.revisions` shows how far it is.";

    NO_RUNTIME = Waiting "NoRuntime", "The namespace has no FunctionRuntime, so nothing runs in it.", "Apply a FunctionRuntime to the namespace, or let the chart make one (`runtime.create`).";
    FUNCTION_MISSING = Waiting "FunctionMissing", "A function that the resource names does not exist, or has no valid spec yet.", "Apply the Function, or name another one. The resource becomes ready by itself once the function is there.";
    SCALED_TO_ZERO = Waiting "ScaledToZero", "`replicas` is 0, so nothing runs.", "Raise `spec.replicas`.";
    DEFINITION_MISSING = Waiting "DefinitionMissing", "A child is of a kind that the cluster does not know: PodMonitor or HTTPRoute.", "Install the definitions of the Prometheus operator or the Gateway API, or turn the feature off. The operator looks for them again every 30 seconds.";
    GATEWAY_REFUSED = Waiting "GatewayRefused", "The gateway does not take the HTTPRoute that leads the host of the route to the runtime, or cannot find what it refers to.", "The message is that of the gateway's controller. Check `spec.http.gateway`, the listeners of the Gateway, and which namespaces it lets in.";
    RUNTIME_NOT_READY = Waiting "RuntimeNotReady", "The resource is in the topology, but no pod of the runtime serves that topology yet.", "Look at the status of the FunctionRuntime.";

    STARTING = Moving "Starting", "Pods have been asked for and are not ready yet.", "Wait. If it takes long, a more precise reason follows.";
    UPDATING = Moving "Updating", "Pods are being replaced by those of the last change.", "Wait; requests are served meanwhile.";
    TOPOLOGY_SPREADING = Moving "TopologySpreading", "Not every pod of the runtime serves the last topology yet.", "Wait; it takes seconds. If it lasts, a pod cannot be reached: look at `status.servingRevision` and at the pods.";
    HANDSHAKE_PENDING = Moving "HandshakePending", "Workers run, and not every pod of the runtime has shaken hands with them yet.", "Wait. If it lasts, look at the logs of the workers.";
    ROLLING_OUT = Moving "RollingOut", "A new revision takes over step by step.", "Wait; `status.revisions` shows the shares.";
    DELETING = Moving "Deleting", "The resource is being deleted, and its state with it if its deletion policy says so.", "Wait.";
    RETRYING = Moving "Retrying", "The API server answered with an error that may pass. The operator tries again.", "If it lasts, the message says which call failed, and how.";

    INVALID = Stalled "Invalid", "The spec has a problem that only an edit can solve. The message names it by its code; `tandem check --explain CODE` tells more.", "Edit the resource. If it had a valid spec before, that one keeps serving.";
    UNREADABLE = Stalled "Unreadable", "The resource cannot be read: its definition in the cluster is of another version than the operator.", "Update the definitions (chart `tandem-crds`) and the operator to the same version.";
    ANOTHER_RUNTIME = Stalled "AnotherRuntime", "The namespace has an older FunctionRuntime, and only one can run its functions.", "Delete one of them, or use another namespace.";
    STORE_CHANGED = Stalled "StoreChanged", "The kind of store was changed. What is stored would be left behind.", "Set the store as it was, or delete the FunctionRuntime and make it anew.";
    SCALE_REFUSED = Stalled "ScaleRefused", "The embedded store belongs to one process, and more than one replica is asked for.", "Set `replicas` to 1, or use the store tikv.";
    NAME_TAKEN = Stalled "NameTaken", "An object that the operator did not make has the name of a child.", "Rename the resource or the other object; the message names it.";
    REJECTED = Stalled "Rejected", "The API server, or an admission policy of the cluster, refuses a child for what it says.", "The message is that of the API server: change the spec or the policy.";
    TOPOLOGY_REFUSED = Waiting "TopologyRefused", "A pod of the runtime cannot serve the last topology; it goes on with the one before, or serves nothing.", "The message says why. Mostly its image is of another version than the operator: set `spec.image`, or remove it.";
    ROLLOUT_FAILED = Stalled "RolloutFailed", "Too many flows failed with the new revision. The previous one serves again.", "Look at the logs of the failed revision, and apply a better one.";
    HANDLERS_DIFFER = Stalled "HandlersDiffer", "The workers' handlers or states are not those that the spec pins down.", "Change `spec.handlers` and `spec.states`, or the image.";
    STATE_INCOMPATIBLE = Stalled "StateIncompatible", "The workers declare a state with another kind or type than what is stored.", "Give the state its old kind and type, or a new name.";
    HANDSHAKE_REFUSED = Stalled "HandshakeRefused", "A pod of the runtime refuses the handshake of the workers.", "The message says why.";
    WORKERS_UNREACHABLE = Waiting "WorkersUnreachable", "A pod of the runtime cannot reach the workers.", "Check that the workers listen on 0.0.0.0 and port 9000 (TANDEM_WORKER_ADDRESS), and that no network policy is in the way.";

    FORBIDDEN = Waiting "Forbidden", "The operator lacks a right. The message names it.", "Install the chart with `rbac.create`, or grant the right. The operator tries again.";
    QUOTA_EXCEEDED = Waiting "QuotaExceeded", "A quota of the namespace does not allow what the resource asks for.", "Raise the quota or ask for less.";
    POD_SECURITY = Stalled "PodSecurity", "The Pod Security level of the namespace, or another admission policy, refuses the pods.", "The message says which field. Pods of the operator satisfy the level `restricted`.";
    IMAGE_UNAVAILABLE = Waiting "ImageUnavailable", "A node cannot get the image.", "Check the image's name, the registry, and `podTemplate.imagePullSecrets`.";
    UNSCHEDULABLE = Waiting "Unschedulable", "No node can take a pod.", "The message is that of the scheduler: add nodes, ask for less, or change selectors and tolerations.";
    CRASHING = Waiting "Crashing", "A container ends again and again.", "Look at its logs: `kubectl logs --previous`.";
    CONTAINER_REFUSED = Waiting "ContainerRefused", "A node cannot make a container from its specification: a Secret or ConfigMap is missing, or the image would run as root.", "The message is that of the node.";
    VOLUME_PENDING = Waiting "VolumePending", "The volume of a pod is not there yet.", "Look at the PersistentVolumeClaim: is there a StorageClass that can provide it?";
    MOUNT_PENDING = Waiting "MountPending", "A node cannot prepare a pod before its containers: a Secret or ConfigMap that it mounts does not exist, or its network is not there.", "The message names what the pod mounts: look for each with `kubectl get secret NAME` or `kubectl get configmap NAME`; the name of the first comes from `spec.store.tikv.tlsSecretName`. `kubectl describe pod` shows what the node says.";
    STORE_UNREACHABLE = Waiting "StoreUnreachable", "The pods of the runtime cannot reach their store.", "Check the endpoints in `spec.store.tikv`, the certificates, and network policies.";
    PURGE_FAILED = Waiting "PurgeFailed", "The state of a deleted FunctionRuntime cannot be removed, or not now. The message says why.", "It is tried again. To give up and keep what is left, set `deletionPolicy: Retain`, or remove the finalizer `tandem.dev/state`.";
}

impl Reason {
    /// The reason of that name.
    pub fn named(name: &str) -> Option<&'static Self> {
        ALL.iter().copied().find(|reason| reason.name == name)
    }
}
