{{- /*
What the operator may do in each namespace that it looks after: one rule for each resource, by name, with its reason. A ClusterRole or a Role
holds them. Children are only ever applied and deleted, so that nothing has `update` except where Kubernetes asks for it.
*/ -}}
{{- define "tandem.rules" -}}
# Configuration and compiled topology of each runtime.
- apiGroups: [""]
  resources: [configmaps]
  verbs: [create, delete, get, list, patch, watch]
# The workers of a function that has an image: one for each revision that is alive.
- apiGroups: [apps]
  resources: [deployments]
  verbs: [create, delete, get, list, patch, watch]
# Says on an object what has changed.
- apiGroups: [events.k8s.io]
  resources: [events]
  verbs: [create, patch]
# Read to compile the topology.
- apiGroups: [tandem.dev]
  resources: [functionegresses]
  verbs: [get, list, watch]
- apiGroups: [tandem.dev]
  resources: [functionegresses/status]
  verbs: [get, patch]
# Read to compile the topology, and to make HTTPRoutes and Ingresses of hosts.
- apiGroups: [tandem.dev]
  resources: [functionroutes]
  verbs: [get, list, watch]
# Owns HTTPRoutes and Ingresses: OwnerReferencesPermissionEnforcement asks for it.
- apiGroups: [tandem.dev]
  resources: [functionroutes/finalizers]
  verbs: [update]
- apiGroups: [tandem.dev]
  resources: [functionroutes/status]
  verbs: [get, patch]
# Read to make runtimes; patched only in metadata.finalizers, where state is purged.
- apiGroups: [tandem.dev]
  resources: [functionruntimes]
  verbs: [get, list, patch, watch]
# Owns the children of a runtime: OwnerReferencesPermissionEnforcement asks for it.
- apiGroups: [tandem.dev]
  resources: [functionruntimes/finalizers]
  verbs: [update]
- apiGroups: [tandem.dev]
  resources: [functionruntimes/status]
  verbs: [get, patch]
# Read to compile the topology and to make workers.
- apiGroups: [tandem.dev]
  resources: [functions]
  verbs: [get, list, watch]
# Owns the workers of a function: OwnerReferencesPermissionEnforcement asks for it.
- apiGroups: [tandem.dev]
  resources: [functions/finalizers]
  verbs: [update]
- apiGroups: [tandem.dev]
  resources: [functions/status]
  verbs: [get, patch]
# Scales a runtime where its FunctionRuntime says so.
- apiGroups: [autoscaling]
  resources: [horizontalpodautoscalers]
  verbs: [create, delete, get, list, patch, watch]
# Leads the host of a FunctionRoute to the runtime, through the Gateway API.
- apiGroups: [gateway.networking.k8s.io]
  resources: [httproutes]
  verbs: [create, delete, get, list, patch, watch]
# Leads the host of a FunctionRoute to the runtime, through an Ingress.
- apiGroups: [networking.k8s.io]
  resources: [ingresses]
  verbs: [create, delete, get, list, patch, watch]
# Purges the state of a deleted runtime from TiKV, where its deletionPolicy is Delete.
- apiGroups: [batch]
  resources: [jobs]
  verbs: [create, delete, get, list, patch, watch]
# Who reaches runtimes and workers, and whom they reach.
- apiGroups: [networking.k8s.io]
  resources: [networkpolicies]
  verbs: [create, delete, get, list, patch, watch]
# Purges the state of a deleted runtime on a volume, where its deletionPolicy is Delete: the claim of its own StatefulSet.
- apiGroups: [""]
  resources: [persistentvolumeclaims]
  verbs: [delete, get]
# Keeps runtimes and workers through drains of nodes.
- apiGroups: [policy]
  resources: [poddisruptionbudgets]
  verbs: [create, delete, get, list, patch, watch]
# Lets Prometheus find runtimes where their FunctionRuntime says so.
- apiGroups: [monitoring.coreos.com]
  resources: [podmonitors]
  verbs: [create, delete, get, list, patch, watch]
# Why a pod does not run is said in the status of its function; runtimes are reached by the address of their pods.
- apiGroups: [""]
  resources: [pods]
  verbs: [get, list, watch]
# The accounts of runtimes and workers. They have no rights and no token.
- apiGroups: [""]
  resources: [serviceaccounts]
  verbs: [create, delete, get, list, patch, watch]
# How clients reach a runtime, runtimes one another, and a runtime its workers.
- apiGroups: [""]
  resources: [services]
  verbs: [create, delete, get, list, patch, watch]
# The pods of a runtime.
- apiGroups: [apps]
  resources: [statefulsets]
  verbs: [create, delete, get, list, patch, watch]
{{- end }}
