#!/usr/bin/env python3
"""Renders the chart without a cluster and checks what comes out. usage: check.py [--write DIR]

Needs PyPI's helm-python-sdk and kubernetes-validate. --write keeps the manifests of the default values.
"""
import pathlib
import sys

import helm_python
import kubernetes_validate
import tomllib
import yaml

HERE = pathlib.Path(__file__).parent
CHART = HERE / "keytrail"
# Oldest and newest that the chart names or the validator knows.
VERSIONS = ("1.25", "1.30", "1.37")

CASES = {
    "defaults": {},
    "everything": {
        "image": {"digest": "sha256:" + "ab" * 32},
        "imagePullSecrets": [{"name": "registry"}],
        "podLabels": {"team": "security"},
        "podAnnotations": {"example.com/note": "x"},
        "agent": {
            "config": {"tier": "base", "watch": ["/srv/*/token"], "log": {"format": "json", "level": "info"}},
            "rules": {"site.toml": '[[rule]]\nname = "site"\n'},
            "fleetKey": {"secretName": "keytrail-fleet", "key": "fleet.key"},
            "extraCapabilities": [],
            "seLinuxOptions": {"type": "super_t"},
            "extraEnv": [{"name": "RUST_BACKTRACE", "value": "1"}],
        },
        "metrics": {"address": "0.0.0.0", "port": 9100},
        "podMonitor": {"enabled": True, "labels": {"release": "prometheus"}},
        "tcp": {
            "enabled": True,
            "address": "::",
            "secretName": "keytrail-tls",
            "read": ["spiffe://example.org/collector"],
            "administer": ["operator.example.org"],
        },
    },
    "names by the API server alone": {"podNames": {"hostSocketPath": ""}},
    "a kubelet elsewhere": {"podNames": {"hostSocketPath": "/var/snap/kubelet/pods-api"}},
    "nothing more than the socket": {
        "metrics": {"enabled": False},
        "podNames": {"enabled": False},
        "networkPolicy": {"enabled": False},
    },
}
# Kinds that Kubernetes itself does not have.
FOREIGN = {"PodMonitor"}
REFUSED = {
    "an unknown key": {"agnet": {}},
    "a digest that is none": {"image": {"repository": "x", "digest": "sha256:12"}},
    "a capability nobody needs": {"agent": {"extraCapabilities": ["SYS_MODULE"]}},
    "a relative path of the node": {"agent": {"hostStatePath": "var/lib"}},
    "a monitor of what Prometheus does not reach": {"podMonitor": {"enabled": True}},
    "a relative path of the kubelet": {"podNames": {"hostSocketPath": "var/lib/kubelet/pods-api"}},
    "TLS without a certificate": {"tcp": {"enabled": True}},
    "a client by a pattern": {"tcp": {"read": ["*.example.org"]}},
}


def documents(values):
    with helm_python.Chart.load(CHART) as chart:
        chart.validate_schema(values)
        rendered = chart.render(values=values, name="node", namespace="security")
    for path, text in sorted(rendered.items()):
        for document in yaml.safe_load_all(text):
            if document:
                yield path, document


def check(name, values):
    found = {}
    for path, document in documents(values):
        for version in VERSIONS if document["kind"] not in FOREIGN else ():
            kubernetes_validate.validate(document, version, strict=True)
        found.setdefault(document["kind"], []).append(document)
    pod = found["DaemonSet"][0]["spec"]["template"]["spec"]
    container = pod["containers"][0]
    security = container["securityContext"]
    assert security["capabilities"]["drop"] == ["ALL"] and not security["privileged"], name
    assert security["readOnlyRootFilesystem"] and not security["allowPrivilegeEscalation"], name
    assert pod["hostPID"], name
    # A token only for who may use it, and a role only with it: pods, and to read them.
    named = values.get("podNames", {}).get("enabled", True)
    assert pod["automountServiceAccountToken"] is named, name
    rules = [rule for role in found.get("ClusterRole", []) for rule in role["rules"]]
    assert rules == ([{"apiGroups": [""], "resources": ["pods"], "verbs": ["get", "list", "watch"]}] if named else []), name
    assert "Role" not in found and not found["ServiceAccount"][0]["automountServiceAccountToken"], name
    # The kubelet's socket, in its directory: a socket that is made anew is seen.
    directory = values.get("podNames", {}).get("hostSocketPath", "/var/lib/kubelet/pods-api") if named else ""
    sockets = [mount for mount in container["volumeMounts"] if mount["name"] == "pods-api"]
    assert [(m["mountPath"], m["readOnly"]) for m in sockets] == ([("/var/lib/kubelet/pods-api", True)] if directory else []), name
    paths = [volume["hostPath"] for volume in pod["volumes"] if volume["name"] == "pods-api"]
    assert paths == ([{"path": directory, "type": "DirectoryOrCreate"}] if directory else []), name
    # Each mount has its volume and the other way round.
    mounts = {mount["name"] for mount in container["volumeMounts"]}
    assert mounts == {volume["name"] for volume in pod["volumes"]}, (name, mounts)
    config = tomllib.loads(found["ConfigMap"][0]["data"]["agent.toml"])
    assert set(config) >= {"tier"}, config
    return found, config


def main():
    found, config = check("defaults", CASES["defaults"])
    assert config["tier"] == "auto" and "fingerprint_key_file" not in config, config
    assert config["metrics"] == {"listen": "127.0.0.1:9479"} and "tcp" not in config, config
    assert config["kubernetes"] == {"names": True}, config
    container = found["DaemonSet"][0]["spec"]["template"]["spec"]["containers"][0]
    for probe, path in (("startupProbe", "/readyz"), ("readinessProbe", "/readyz"), ("livenessProbe", "/healthz")):
        assert container[probe]["httpGet"] == {"path": path, "host": "127.0.0.1", "port": "metrics"}, probe
    assert found["DaemonSet"][0]["spec"]["template"]["spec"]["containers"][0]["image"].endswith(":0.1.0")
    found, config = check("everything", CASES["everything"])
    assert config["fingerprint_key_file"] == "/etc/keytrail/fleet/fleet.key", config
    assert config["tcp"]["listen"] == "[::]:7443" and config["tcp"]["administer"] == ["operator.example.org"], config
    assert config["metrics"] == {"listen": "0.0.0.0:9100"}, config
    monitor = found["PodMonitor"][0]
    assert monitor["metadata"]["labels"]["release"] == "prometheus", monitor
    pod = found["DaemonSet"][0]["spec"]["template"]["spec"]
    ports = {port["name"]: port["containerPort"] for port in pod["containers"][0]["ports"]}
    assert ports == {"metrics": 9100, "grpc": 7443}, ports
    assert monitor["spec"]["podMetricsEndpoints"][0]["port"] in ports, monitor
    assert "SYS_ADMIN" not in pod["containers"][0]["securityContext"]["capabilities"]["add"]
    assert pod["containers"][0]["securityContext"]["seLinuxOptions"] == {"type": "super_t"}
    assert pod["containers"][0]["image"].endswith("@sha256:" + "ab" * 32)
    assert tomllib.loads(found["ConfigMap"][1]["data"]["site.toml"])["rule"][0]["name"] == "site"
    for name in ("names by the API server alone", "a kubelet elsewhere"):
        check(name, CASES[name])
    found, config = check("nothing more than the socket", CASES["nothing more than the socket"])
    assert config["kubernetes"] == {"names": False} and "metrics" not in config, config
    container = found["DaemonSet"][0]["spec"]["template"]["spec"]["containers"][0]
    assert "exec" in container["livenessProbe"] and "ports" not in container and "NetworkPolicy" not in found
    for why, values in REFUSED.items():
        try:
            list(documents(values))
        except helm_python.HelmError:
            continue
        raise SystemExit(f"accepted: {why}")
    if sys.argv[1:2] == ["--write"]:
        for path, document in documents({}):
            name = f"{document['kind'].lower()}.yaml"
            (pathlib.Path(sys.argv[2]) / name).write_text(yaml.safe_dump(document, sort_keys=False))
    print(f"{len(CASES)} renderings hold against Kubernetes {', '.join(VERSIONS)}; {len(REFUSED)} bad values refused")


if __name__ == "__main__":
    main()
