"""Bundles of a real `opa build` and `opa sign`: what they make is read, verified and decided here as they mean it."""

import json
import subprocess
import tarfile
from pathlib import Path

import pytest

from sandboxd.errors import PolicyInvalid
from sandboxd.policy.rego_bundle import read_bundle
from sandboxd.settings.paths import shipped
from tests.bundles import private_key, private_pem, public_file
from tests.opa import need_opa

POLICY = """package sandboxd

import rego.v1

default decision := false

decision if data.lib.limits.names["é"] == input.node
"""
DATA = '{"lib": {"limits": {"names": {"\\u00e9": "<n&\\u2028\\u007f>"}, "most": [1.50, 12345678901234567890, 1e10]}}}'
YAML = 'k: [1, 2.5, true, null, "yes", 0.0000001, 1.0e+21, -7]\nwords: {b: a word, a: "1"}\n'


def opa(directory: Path, *arguments: str) -> None:
    subprocess.run([need_opa(), *arguments], cwd=directory, check=True, capture_output=True, timeout=120)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A bundle's directory, with each kind of file."""
    directory = tmp_path / "source"
    (directory / "lib" / "more").mkdir(parents=True)
    (directory / "policy.rego").write_text(POLICY)
    (directory / "policy_test.rego").write_text("package sandboxd_test\n\nimport rego.v1\n\ntest_it if true\n")
    (directory / "data.json").write_text(DATA)
    (directory / "lib" / "more" / "data.yaml").write_text(YAML)
    manifest = {
        "revision": "r7",
        "roots": ["sandboxd", "sandboxd_test", "lib"],
        "metadata": {"sandboxd": {"version": 7}},
    }
    (directory / ".manifest").write_text(json.dumps(manifest))
    return directory


def keys(directory: Path, kind: str) -> tuple[str, Path]:
    """The file with the private key, and the one with the public."""
    path = directory / f"{kind}.pem"
    path.write_bytes(private_pem(private_key(kind)))
    return str(path), public_file(directory, kind)


@pytest.mark.parametrize(("kind", "algorithm"), [("rsa", "RS256"), ("rsa", "PS256"), ("rsa", "RS512"), ("ec", "ES256")])
def test_bundle_of_opa_build_is_verified_and_is_what_its_directory_is(
    tmp_path: Path, source: Path, kind: str, algorithm: str
) -> None:
    private, public = keys(tmp_path, kind)
    target = tmp_path / "b.tar.gz"
    opa(source, "build", "-b", ".", "--signing-key", private, "--signing-alg", algorithm, "-o", str(target))
    built = read_bundle([target], public, tests=True)
    assert built.revision == "r7" and built.release is not None and built.release.version == 7
    plain = read_bundle([source], tests=True)
    assert dict(built.modules) == dict(plain.modules)
    assert [name for name, _ in built.tests] == ["policy_test.rego"]
    assert json.loads(built.data_json) == json.loads(plain.data_json)
    assert '"most": [1.50, 12345678901234567890, 1e10]' in plain.data_json


def test_bundle_without_data_is_within_its_roots(tmp_path: Path) -> None:
    """`opa build` puts an empty data.json into it all the same."""
    source, target = tmp_path / "source", tmp_path / "b.tar.gz"
    source.mkdir()
    (source / "policy.rego").write_text("package sandboxd\n\ndecision := false\n")
    (source / ".manifest").write_text('{"revision": "r1", "roots": ["sandboxd"]}')
    opa(source, "build", "-b", ".", "-o", str(target))
    with tarfile.open(target) as archive:
        assert "/data.json" in archive.getnames()
    assert read_bundle([target]).revision == "r1"


def test_files_signed_by_opa_sign_and_packed_by_tar_are_verified(tmp_path: Path, source: Path) -> None:
    """Here the structured files are signed as they stand, YAML too."""
    private, public = keys(tmp_path, "ec")
    opa(source, "sign", "--signing-key", private, "--signing-alg", "ES256", "--bundle", ".")
    target = tmp_path / "b.tar.gz"
    subprocess.run(["/bin/tar", "-czf", str(target), "."], cwd=source, check=True)
    assert json.loads(read_bundle([target], public).data_json)["lib"]["more"]["words"] == {"a": "1", "b": "a word"}
    (source / "lib" / "more" / "data.yaml").write_text(YAML.replace("a word", "another"))
    subprocess.run(["/bin/tar", "-czf", str(target), "."], cwd=source, check=True)
    with pytest.raises(PolicyInvalid, match=r"'lib/more/data\.yaml' is not the file that was signed"):
        read_bundle([target], public)


@pytest.mark.parametrize("attack", ["none", "changed", "stripped", "added", "resigned"])
def test_bundle_of_opa_that_was_tampered_with_is_refused(tmp_path: Path, source: Path, attack: str) -> None:
    private, public = keys(tmp_path, "rsa")
    opa(source, "build", "-b", ".", "--signing-key", private, "-o", "b.tar.gz")
    (source / "x").mkdir()
    with tarfile.open(source / "b.tar.gz") as packed:
        names = [member.name.lstrip("/") for member in packed.getmembers()]
        for member in packed.getmembers():
            file = packed.extractfile(member)
            assert file is not None
            path = source / "x" / member.name.lstrip("/")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(file.read())
    match attack:
        case "changed":
            (source / "x" / "policy.rego").write_text(POLICY.replace("false", "true"))
        case "stripped":
            names.remove("policy_test.rego")
        case "added":
            (source / "x" / "more.rego").write_text("package sandboxd\n\ndecision if true\n")
            names.append("more.rego")
        case "resigned":
            other, _ = keys(tmp_path, "ec")
            (source / "x" / ".signatures.json").unlink()
            opa(source / "x", "sign", "--signing-key", other, "--signing-alg", "ES256", "--bundle", ".")
        case _:
            pass
    target = tmp_path / "b.tar.gz"
    subprocess.run(["/bin/tar", "-czf", str(target), *sorted(names)], cwd=source / "x", check=True)
    if attack == "none":
        assert read_bundle([target], public).revision == "r7"
        return
    with pytest.raises(PolicyInvalid, match=r"not the file|not there|not covered|not of policy\.verification_key"):
        read_bundle([target], public)


def test_shipped_policy_passes_opas_own_checks_and_tests() -> None:
    policies = str(shipped("policies"))
    checked = subprocess.run([need_opa(), "check", "--strict", policies], capture_output=True, timeout=120)
    assert checked.returncode == 0, checked.stderr.decode()
    tested = subprocess.run([need_opa(), "test", "--format=json", policies], capture_output=True, timeout=120)
    results = json.loads(tested.stdout)
    assert len(results) >= 40
    assert [result["name"] for result in results if result.get("fail") or result.get("error")] == []
