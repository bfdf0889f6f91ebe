"""The files under deploy/ say what the software needs: valid for Kubernetes, and the same capabilities everywhere.

Validated offline against the schemas that kubernetes-validate ships. Nothing is applied to any cluster.
"""

from pathlib import Path

import kubernetes_validate
import pytest
from ruamel.yaml import YAML

from sandboxd import config

DEPLOY = Path(__file__).resolve().parents[2] / "deploy"
BASE = DEPLOY / "kubernetes/base"
KUBERNETES = "1.37"


def load(path: Path) -> dict[str, object]:
    document = YAML(typ="safe").load(path)
    assert isinstance(document, dict)
    return document


def container() -> dict[str, dict[str, dict[str, list[str]]]]:
    daemonset = YAML(typ="safe").load(BASE / "daemonset.yaml")
    (only,) = daemonset["spec"]["template"]["spec"]["containers"]
    assert isinstance(only, dict)
    return only


def resources() -> list[str]:
    listed = load(BASE / "kustomization.yaml")["resources"]
    assert isinstance(listed, list)
    return listed


@pytest.mark.parametrize("name", resources())
def test_manifest_is_valid_kubernetes(name: str) -> None:
    kubernetes_validate.validate(load(BASE / name), KUBERNETES, strict=True)


def test_validation_would_notice_a_misspelt_field() -> None:
    broken = load(BASE / "serviceaccount.yaml")
    broken["automountServiceAccountTokens"] = False
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(broken, KUBERNETES, strict=True)


def test_every_manifest_belongs_to_the_kustomization() -> None:
    assert {path.name for path in BASE.glob("*.yaml")} - {"kustomization.yaml"} == set(resources())


def test_shipped_configuration_is_one_the_daemon_takes() -> None:
    data = load(BASE / "config.yaml")["data"]
    assert isinstance(data, dict)
    (text,) = data.values()
    settings = config.parse(text.encode(), "config.yaml")
    mounts = {
        mount["mountPath"]
        for mount in YAML(typ="safe").load(BASE / "daemonset.yaml")["spec"]["template"]["spec"]["containers"][0][
            "volumeMounts"
        ]
    }
    assert {settings.state_dir, str(settings.socket_path.parent)} <= mounts


def test_unit_and_pod_have_the_same_capabilities() -> None:
    added = container()["securityContext"]["capabilities"]["add"]
    unit = (DEPLOY / "systemd/sandboxd.service").read_text()
    (line,) = [line for line in unit.splitlines() if line.startswith("CapabilityBoundingSet=")]
    assert {f"CAP_{name}" for name in added} == set(line.partition("=")[2].split())
    assert container()["securityContext"]["capabilities"]["drop"] == ["ALL"]


def test_apparmor_profile_frees_no_interpreter_of_the_system() -> None:
    text = (DEPLOY / "apparmor/sandboxd").read_text()
    (profile,) = [line for line in text.splitlines() if line.startswith("profile ")]
    assert profile.split()[2].startswith("/opt/sandboxd/bin/")
