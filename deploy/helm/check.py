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
            "extraEnv": [{"name": "RUST_BACKTRACE", "value": "1"}],
        },
    },
}
REFUSED = {
    "an unknown key": {"agnet": {}},
    "a digest that is none": {"image": {"repository": "x", "digest": "sha256:12"}},
    "a capability nobody needs": {"agent": {"extraCapabilities": ["SYS_MODULE"]}},
    "a relative path of the node": {"agent": {"hostStatePath": "var/lib"}},
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
        for version in VERSIONS:
            kubernetes_validate.validate(document, version, strict=True)
        found.setdefault(document["kind"], []).append(document)
    pod = found["DaemonSet"][0]["spec"]["template"]["spec"]
    container = pod["containers"][0]
    security = container["securityContext"]
    assert security["capabilities"]["drop"] == ["ALL"] and not security["privileged"], name
    assert security["readOnlyRootFilesystem"] and not security["allowPrivilegeEscalation"], name
    assert pod["hostPID"] and not pod["automountServiceAccountToken"], name
    # Each mount has its volume and the other way round.
    mounts = {mount["name"] for mount in container["volumeMounts"]}
    assert mounts == {volume["name"] for volume in pod["volumes"]}, (name, mounts)
    config = tomllib.loads(found["ConfigMap"][0]["data"]["agent.toml"])
    assert set(config) >= {"tier"}, config
    return found, config


def main():
    found, config = check("defaults", CASES["defaults"])
    assert config["tier"] == "auto" and "fingerprint_key_file" not in config, config
    assert found["DaemonSet"][0]["spec"]["template"]["spec"]["containers"][0]["image"].endswith(":0.1.0")
    found, config = check("everything", CASES["everything"])
    assert config["fingerprint_key_file"] == "/etc/keytrail/fleet/fleet.key", config
    pod = found["DaemonSet"][0]["spec"]["template"]["spec"]
    assert "SYS_ADMIN" not in pod["containers"][0]["securityContext"]["capabilities"]["add"]
    assert pod["containers"][0]["image"].endswith("@sha256:" + "ab" * 32)
    assert tomllib.loads(found["ConfigMap"][1]["data"]["site.toml"])["rule"][0]["name"] == "site"
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
