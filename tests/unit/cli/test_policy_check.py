import json
from pathlib import Path
from typing import Any

import pytest

from sandboxd.cli.mistake import Mistake
from sandboxd.cli.policy_check import MOST_MISTAKES, explain
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


@pytest.mark.parametrize(
    ("changes", "mistake"),
    [
        ({"action": {"type": "file.eat"}}, r"action\.type: 'file\.eat' is not one of \['approval\.decide', "),
        ({"action": {}}, r"action\.type: is not there"),
        ({"action": 7}, r"action\.type: is not there"),
        ({"action": {"type": "file.get"}}, r"action: 'path' is a required property"),
        ({"action__argv": ["a", 7]}, r"action\.argv\.1: 7 is not of type 'string'"),
        ({"action__extra": 1}, r"action: .*'extra' was unexpected"),
        ({"caller": []}, r"caller: \[\] is not of type 'object'"),
        ({"api_version": "v0"}, r"api_version: 'sandboxd\.io/v1' was expected"),
    ],
)
def test_input_that_is_none_is_told_with_the_place_of_each_mistake(
    tmp_path: Path, policy: Path, changes: dict[str, object], mistake: str
) -> None:
    with pytest.raises(Mistake, match=mistake):
        explain(document(tmp_path, **changes), [policy], None, as_json=True)


def test_all_mistakes_are_told_up_to_a_number(tmp_path: Path, policy: Path) -> None:
    with pytest.raises(Mistake) as told:
        explain(document(tmp_path, action__argv=[1] * 50, node=7), [policy], None, as_json=True)
    assert len(str(told.value).splitlines()) == MOST_MISTAKES


@pytest.mark.parametrize(
    ("content", "mistake"),
    [
        (b"{", "not JSON"),
        (b'{"action": {}, "action": {}}', "key 'action' is there twice"),
        (b"[]", "is not there"),
        (b" " * (1024 * 1024 + 1), "over 1048576 bytes"),
    ],
)
def test_file_that_is_no_document_is_refused(tmp_path: Path, policy: Path, content: bytes, mistake: str) -> None:
    (tmp_path / "a.json").write_bytes(content)
    with pytest.raises(Mistake, match=mistake):
        explain(tmp_path / "a.json", [policy], None, as_json=True)


def test_absent_file_is_named(tmp_path: Path, policy: Path) -> None:
    with pytest.raises(Mistake, match=r"cannot read '.*absent\.json': No such file"):
        explain(tmp_path / "absent.json", [policy], None, as_json=True)
