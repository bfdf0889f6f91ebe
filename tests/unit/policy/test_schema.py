import json
from collections.abc import Iterator
from copy import deepcopy
from dataclasses import fields, replace
from typing import Any

import jsonschema  # type: ignore[import-untyped]
import pytest

from sandboxd.action import Action, ApprovalDecide, FilePut, NetConnect, SandboxDelete
from sandboxd.finding import CodeFacts, Finding, FindingCode
from sandboxd.policy.document import ACTIONS
from sandboxd.policy.schema import FILE, main, schema
from tests.fakes.policy import question, start

ANALYSED = replace(
    start(),
    findings=(Finding(FindingCode.IMPORT, "os", 1),),
    code=CodeFacts("python", 9, 1, 3.0, parsed=True),
)
EXAMPLES: tuple[Action, ...] = (
    start(),
    ANALYSED,
    FilePut("/workspace/a", 0o644, 3, "a" * 64),
    SandboxDelete(),
    NetConnect("tcp", "example.org", "192.0.2.1", 443),
    ApprovalDecide("a" * 32, approve=True, action_type="net.connect", action_sha256="b" * 64, requester="uid:1"),
)


def problems(document: object) -> list[str]:
    validator = jsonschema.Draft7Validator(schema())
    return [error.message for error in validator.iter_errors(document)]


def test_the_published_schema_is_what_the_code_says() -> None:
    assert main(["--check"]) == 0, "run python -m sandboxd.policy.schema"
    jsonschema.Draft7Validator.check_schema(json.loads(FILE.read_text()))


def test_every_action_is_in_it() -> None:
    variants: Any = schema()["properties"]
    found = {variant["properties"]["type"]["const"]: variant for variant in variants["action"]["anyOf"]}
    assert found.keys() == {kind.type for kind in ACTIONS}
    for kind in ACTIONS:
        assert found[kind.type]["required"] == ["type", *(field.name for field in fields(kind))]


@pytest.mark.parametrize("action", EXAMPLES, ids=lambda action: str(action.type))
def test_what_is_asked_follows_it(action: Action) -> None:
    assert problems(json.loads(question(action).document)) == []


def broken() -> Iterator[tuple[str, dict[str, Any]]]:
    whole = json.loads(question().document)
    for name in whole:
        yield f"without {name}", {key: value for key, value in whole.items() if key != name}
    for path in ("action", "caller", "profile", "sandbox"):
        changed = deepcopy(whole)
        changed[path]["more"] = 1
        yield f"more in {path}", changed
    for path, name, value in (
        ("action", "type", "host.reboot"),
        ("action", "argv", "/bin/true"),
        ("action", "code", {}),
        ("action", "code", "x"),
        ("action", "findings", ["import"]),
        ("action", "findings", [{"code": "harmless", "detail": "", "line": 1}]),
        ("action", "stdin_bytes", "0"),
        ("action", "isolation", "none"),
        ("action", "labels", []),
        ("caller", "roles", "operator"),
        ("sandbox", "seen", {}),
    ):
        changed = deepcopy(whole)
        changed[path][name] = value
        yield f"{path}.{name} is {value!r}", changed


BROKEN = dict(broken())


@pytest.mark.parametrize("name", BROKEN)
def test_what_is_never_asked_does_not(name: str) -> None:
    assert problems(BROKEN[name])
