import json
from pathlib import Path
from typing import Any

import pytest

from sandboxd.cli.mistake import Mistake
from sandboxd.cli.policy_check import explain
from sandboxd.errors import InvalidRequest
from tests.fakes.policy import question, start

POLICY = """package sandboxd

import rego.v1

default decision := false

decision := {
	"verdict": "transform",
	"reasons": [{"code": "tight", "message": "fewer processes"}],
	"message_for_agent": "you get fewer processes",
	"obligations": {"limits": {"pids": 3}},
	"ttl_seconds": 5,
} if {
	known
}

known if input.caller.tenant in data.tenants

known if input.node == "never"
"""


@pytest.fixture
def policy(tmp_path: Path) -> Path:
    (tmp_path / "policy").mkdir()
    (tmp_path / "policy" / "p.rego").write_text(POLICY)
    (tmp_path / "policy" / "data.json").write_text('{"tenants": ["local", "other-tenant"]}')
    return tmp_path / "policy"


def document(directory: Path, **changes: object) -> Path:
    """An ordinary question; `changes` by path, dots as `__`."""
    value: dict[str, Any] = json.loads(question(start()).document)
    for name, new in changes.items():
        *ways, last = name.split("__")
        inner = value
        for way in ways:
            inner = inner[way]
        inner[last] = new
    path = directory / "action.json"
    path.write_text(json.dumps(value))
    return path


def test_decision_is_explained_by_the_rules_that_hold(
    tmp_path: Path, policy: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    explain(document(tmp_path), [policy], None, as_json=True)
    told = json.loads(capsys.readouterr().out)
    assert told["verdict"] == "transform"
    assert told["reasons"] == [{"code": "tight", "message": "fewer processes"}]
    assert (told["obligations"]["limits"], told["ttl_seconds"]) == ([["pids", 3.0]], 5.0)
    assert told["rules"] == [
        {"file": "p.rego", "line": 7, "rule": "sandboxd.decision"},
        {"file": "p.rego", "line": 17, "rule": "sandboxd.known"},
    ]


def test_table_says_the_same_and_nothing_of_other_tenants(
    tmp_path: Path, policy: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    explain(document(tmp_path), [policy], None, as_json=False)
    told = capsys.readouterr().out
    for part in ("transform", "tight: fewer processes", "you get fewer processes", "limit pids", "p.rego:17", "5 s"):
        assert part in told
    assert "other-tenant" not in told
    explain(document(tmp_path, caller__tenant="acme"), [policy], None, as_json=False)
    told = capsys.readouterr().out
    assert "deny" in told and "none: the policy's default" in told and "other-tenant" not in told


def test_input_that_is_none_is_not_decided(tmp_path: Path, policy: Path) -> None:
    with pytest.raises(InvalidRequest, match=r"action\.json: action\.argv\.1: 7 is not of type 'string'"):
        explain(document(tmp_path, action__argv=["a", 7]), [policy], None, as_json=True)


def test_absent_file_is_named(tmp_path: Path, policy: Path) -> None:
    with pytest.raises(Mistake, match=r"cannot read '.*absent\.json': No such file"):
        explain(tmp_path / "absent.json", [policy], None, as_json=True)
