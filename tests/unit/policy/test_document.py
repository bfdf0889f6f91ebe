import json
from dataclasses import replace
from typing import Any

import pytest

from sandboxd.action import Action, ExecutionStart, ProcessExec
from sandboxd.finding import CodeFacts, Finding, FindingCode
from sandboxd.model import Agent, Caller
from sandboxd.policy.document import (
    ACTIONS,
    HISTORY,
    MOMENT,
    ProfileFacts,
    SandboxFacts,
    Seen,
    as_json,
    policy_input,
)
from tests.fakes.policy import CALLER, LIMITS, question, start

PROFILE = ProfileFacts("default", "0" * 64, (("team", "a"),))
FRESH = SandboxFacts("0" * 32, "process")
EXEC = ProcessExec("/usr/bin/git", ("git", "status"), "/workspace", 7, 3)


def key(action: Action | None = None, caller: Caller = CALLER, sandbox: SandboxFacts = FRESH, time: str = "t") -> bytes:
    return policy_input(action or start(), caller, PROFILE, sandbox, "node", time).key


def of(agent: Agent) -> ExecutionStart:
    return replace(start(), agent=agent)


def test_input_has_the_documented_keys_and_no_code() -> None:
    document = json.loads(question().document)
    assert set(document) == {"action", "caller", "profile", "sandbox", "history", "node", "time", "api_version"}
    assert document["action"]["type"] == "execution.start"
    assert document["action"]["limits"]["wall_seconds"] == 30.0
    assert document["sandbox"]["seen"] == {"secret": False, "untrusted_input": False, "egress": False}


def test_every_field_of_an_action_is_in_its_document() -> None:
    labels = (("a", "b"), ("c", "d"))
    action = replace(start(argv=("/bin/true", "é")), labels=labels, agent=Agent("n", "s", "t", "u"))
    document: dict[str, Any] = json.loads(policy_input(action, CALLER, PROFILE, FRESH, "node", "t").document)
    assert document["action"] == {
        "type": "execution.start",
        "argv": ["/bin/true", "é"],
        "language": "",
        "code_sha256": "",
        "findings": [],
        "code": None,
        "env_names": [],
        "files": [],
        "stdin_bytes": 0,
        "isolation": "process",
        "network": "none",
        "limits": as_json(LIMITS),
        "labels": dict(labels),
        "agent": {"name": "n", "session_id": "s", "tool_name": "t", "tool_use_id": "u"},
    }
    assert document["profile"] == {"name": "default", "digest": "0" * 64, "labels": {"team": "a"}}


def test_findings_and_facts_of_source_are_objects() -> None:
    finding = Finding(FindingCode.PROCESS_START, "os.system", 3)
    action = replace(start(), findings=(finding, finding), code=CodeFacts("python", 9, 1, 3.5, parsed=True))
    document = json.loads(question(action).document)["action"]
    assert document["findings"] == [{"code": "process.start", "detail": "os.system", "line": 3}] * 2
    assert document["code"] == {"language": "python", "bytes": 9, "lines": 1, "entropy": 3.5, "parsed": True}


def test_the_types_of_actions_are_a_closed_set_of_different_names() -> None:
    assert sorted(kind.type for kind in ACTIONS) == [
        "approval.decide", "execution.start", "file.delete", "file.get", "file.list", "file.put", "net.connect",
        "process.exec", "profile.use", "sandbox.create", "sandbox.delete", "sandbox.pause", "sandbox.restore",
        "sandbox.resume", "sandbox.snapshot", "secret.use",
    ]  # fmt: skip


def test_input_keeps_letters_as_they_are_written() -> None:
    assert "é" in question(start(argv=("é",))).document.decode()


def test_text_that_is_not_unicode_is_refused() -> None:
    with pytest.raises(ValueError, match="surrogates"):
        question(start(argv=("\ud800",)))


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (key(), key(time="later")),
        (key(), key(sandbox=replace(FRESH, id="1" * 32))),
        (key(), key(sandbox=replace(FRESH, age_seconds=7.5))),
        (key(of(Agent("n", "s1"))), key(of(Agent("n", "s2")))),
        (key(of(Agent(tool_use_id="u1"))), key(of(Agent(tool_use_id="u2")))),
        (key(EXEC), key(replace(EXEC, pid=8, parent_pid=7))),
    ],
)
def test_the_moment_is_no_part_of_the_key(first: bytes, second: bytes) -> None:
    assert first == second


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (key(), key(start(argv=("/bin/false",)))),
        (key(), key(caller=replace(CALLER, tenant="other"))),
        (key(), key(sandbox=replace(FRESH, runtime="gvisor"))),
        (key(of(Agent("n"))), key(of(Agent("m")))),
        (key(of(Agent(tool_name="n"))), key(of(Agent(tool_name="m")))),
        (key(EXEC), key(replace(EXEC, cwd="/tmp"))),
    ],
)
def test_all_else_is(first: bytes, second: bytes) -> None:
    assert first != second


@pytest.mark.parametrize("seen", [Seen(secret=True), Seen(untrusted_input=True), Seen(egress=True)], ids=str)
def test_an_allow_does_not_outlive_what_the_sandbox_has_seen(seen: Seen) -> None:
    assert key(sandbox=replace(FRESH, seen=seen)) != key()


def test_every_place_of_the_moment_and_of_history_is_in_a_document() -> None:
    """One that were misspelt would keep nothing apart."""
    documents = [json.loads(question().document), json.loads(question(EXEC).document)]
    for path in (*MOMENT, *HISTORY):
        found = []
        for document in documents:
            value = document
            for name in path:
                value = value.get(name) if isinstance(value, dict) else None
            found.append(value)
        assert any(value is not None for value in found), path


def test_a_caller_cannot_write_one_question_as_another() -> None:
    odd = replace(CALLER, subject='uid:0","roles":[],"method":"x"},"node":"')
    asked = policy_input(start(), odd, PROFILE, FRESH, 'n"', "t")
    assert asked.key != key()
    document = json.loads(asked.document)
    assert document["caller"]["subject"] == odd.subject
    assert (document["sandbox"]["id"], document["node"], document["time"]) == ("0" * 32, 'n"', "t")
