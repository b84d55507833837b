//! What is said of clients on other hosts, of metrics and of probes.

/// Behind the table of keys.
pub(super) const CLIENTS: &str = r#"## Clients elsewhere

```toml
[tcp]
listen = "0.0.0.0:7443"
read = ["spiffe://example.org/ns/monitoring/sa/collector", "watcher.example.org"]
administer = ["spiffe://example.org/ns/security/sa/operator"]
```

```sh
keytrail watch --address https://node1.example.org:7443 --tls-ca ca.crt --tls-cert client.crt --tls-key client.key
```

A client is who one of the subject alternative names of its certificate says; common names and wildcards count for nothing, and
a certificate with two URIs has no SPIFFE identity. Who is in neither list is told so and nothing else. Changes of the files
are seen within two seconds; what cannot be used leaves the old in use, and is logged. A connection ends when the client's
certificate does, and all end when other authorities count: `watch` and clients of their own go on with the cursor of the last
event. What one client may have at a time is bounded: 8 connections, 16 calls (streams among them), 20 new calls a second
after the first 100, requests of 256 KiB; what a stream does not read in time is a gap in that stream. A handshake has five
seconds. The unix socket is served whatever happens here; a port that is taken and files that are not there yet are tried again.

The systemd unit lets nobody in from elsewhere: `systemctl edit keytrail` with `IPAddressAllow=` and the network of the clients.

## Metrics and probes

`/healthz` answers 200 while the engine makes progress, `/readyz` when sensors are attached as well; otherwise both answer 503
with a sentence. Signals without a hook are `keytrail_signal_served` 0. `/metrics` has events by kind, losses by what was lost, gaps by reason, hooks by signal, sinks, clients, and the
process's memory and time. No label has a value that a host or a client can choose: no pid, fingerprint, path or name.

## Names of pods

Three know what the pods of a node are called, and the agent asks them in this order, for what is there and then for changes:

1. The kubelet, by the unix socket of its Pods API (`pods_socket`; on by default from Kubernetes 1.37 on, feature gate
   `PodsAPI`). It needs no network and no token, and works outside of a pod as well: as a service of a node. A kubelet that has
   just begun and does not know its pods yet is asked again.
2. The API server, in a pod, with the agent's service account (`get`, `list` and `watch` on pods) and `NODE_NAME`. It is asked
   while the kubelet does not serve, and left when that does.
3. The container runtime, by its CRI socket, where there is no account to ask the API server with: on a node
   whose kubelet is older than 1.37, as a service of it. It is looked for where containerd, CRI-O, k3s and RKE2, k0s, MicroK8s and
   cri-dockerd have it, the first that serves is asked, and `runtime_socket` names another. That socket can do anything with the node's containers; the agent calls
   `ListPodSandbox`, `ListContainers` and `ContainerStatus`, which only read, and nothing else. It asks every two seconds: what
   lived for less has no name. The runtime knows names, labels and images, but no owner and no service account.

`keytrail doctor` says who serves, and why the one before it does not. Of each pod the agent keeps namespace, name, service
account, node, owner, 32 labels, and names, images and ids of containers; nothing of the specification, which may hold secrets:
the kubelet is asked with a field mask, and one that does not know masks sends specifications, which are passed over. An
event has names in `process.workload`. It is never held back for them: a name that comes later than the first event of a
container is an event of its own, `workload_named`, with the same pod uid and container id. A pod is recognized by the uid in its
cgroup's path, and a container by its id there. While names cannot be had of anybody there is a gap, `names_unavailable`; it
hides no use. A host that is no node asks nobody: one that is neither a pod nor has, when the agent begins, a kubelet's directory above the
socket's, a socket of a runtime that only nodes have, a pod's cgroup, or `runtime_socket`. Of an answer of the runtime 16 MiB,
16,384 pods or containers, and 1 MiB of each are taken in: beyond the first there are no names, and what is left off of the others
is counted; both are gaps. The
first two were tested against servers that speak the published protocols, the third with containerd, and what is too much of
it against such a server; none of them in a cluster, and CRI-O, k3s, k0s and MicroK8s by the paths of their sockets and the
forms of their cgroups alone.

Without a name, and with the container's id alone, are containers that are no pod's (podman, Docker, nerdctl), and pods whose
node is itself a container of this host (kind, minikube with Docker): their kubelet and their runtime have their sockets in
there.

"#;
