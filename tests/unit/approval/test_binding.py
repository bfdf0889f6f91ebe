from dataclasses import fields, replace

import pytest

from sandboxd.approval.binding import Content, binding, execution, nothing
from sandboxd.model import Agent, Approval, ArgvProgram, CodeProgram, ExecuteRequest, InputFile, Isolation

REQUEST = ExecuteRequest(
    ArgvProgram(("/bin/sh", "job.sh")),
    stdin=b"in",
    env=(("APP_A", "1"),),
    files=(InputFile("job.sh", b"true"),),
    agent=Agent("n", "s", "t", "u"),
    traceparent="00-x",
)
RULE = Approval(60.0, ("uid:1", "role:lead"), 2)


def digest(request: ExecuteRequest) -> bytes:
    return execution(request, lambda: b"").digest


SAME = [
    REQUEST,
    replace(REQUEST, traceparent="00-y"),
    replace(REQUEST, tracestate="a=b"),
    replace(REQUEST, agent=Agent("n", "other session", "t", "other use")),
]
OTHER = [
    replace(REQUEST, program=ArgvProgram(("/bin/sh", "job.sh", ""))),
    replace(REQUEST, program=ArgvProgram(("/bin/sh job.sh",))),
    replace(REQUEST, program=CodeProgram("sh", "job.sh")),
    replace(REQUEST, profile="strict"),
    replace(REQUEST, stdin=b"other"),
    replace(REQUEST, env=(("APP_A", "2"),)),
    replace(REQUEST, env=(("APP_B", "1"),)),
    replace(REQUEST, env=()),
    replace(REQUEST, cwd="/tmp"),
    replace(REQUEST, files=(InputFile("job.sh", b"false"),)),
    replace(REQUEST, files=(InputFile("job.sh", b"true", 0o755),)),
    replace(REQUEST, files=(InputFile("other.sh", b"true"),)),
    replace(REQUEST, files=(*REQUEST.files, InputFile("more", b""))),
    replace(REQUEST, collect=("*",)),
    replace(REQUEST, limits=(("wall_seconds", 1.0),)),
    replace(REQUEST, network="loopback"),
    replace(REQUEST, labels=(("a", "b"),)),
    replace(REQUEST, isolation=Isolation.GVISOR),
    replace(REQUEST, agent=Agent("other", "s", "t", "u")),
    replace(REQUEST, agent=Agent("n", "s", "other", "u")),
    replace(REQUEST, sandbox_id="s"),
    replace(REQUEST, context_id="c"),
    replace(REQUEST, idempotency_key="k"),
    replace(REQUEST, detach=True),
    replace(REQUEST, workspace_mode="m"),
]


@pytest.mark.parametrize("request_", SAME, ids=range(len(SAME)))
def test_the_moment_is_not_bound(request_: ExecuteRequest) -> None:
    assert digest(request_) == digest(REQUEST)


@pytest.mark.parametrize("request_", OTHER, ids=range(len(OTHER)))
def test_all_else_of_a_request_is_bound(request_: ExecuteRequest) -> None:
    assert digest(request_) != digest(REQUEST)


def test_each_field_of_a_request_is_among_these_cases() -> None:
    changed = {
        field.name
        for field in fields(ExecuteRequest)
        if any(getattr(other, field.name) != getattr(REQUEST, field.name) for other in (*SAME, *OTHER))
    }
    assert changed == {field.name for field in fields(ExecuteRequest)}


def test_text_that_is_not_unicode_is_bound_too() -> None:
    odd = [replace(REQUEST, program=CodeProgram("sh", source)) for source in ("\ud800", "\ud801", "\\ud800")]
    assert len({digest(request) for request in odd}) == 3


BOUND = binding(b"key", Content(b"content"), "r1", RULE)


@pytest.mark.parametrize(
    "other",
    [
        binding(b"kez", Content(b"content"), "r1", RULE),
        binding(b"key", Content(b"kontent"), "r1", RULE),
        binding(b"key", nothing(), "r1", RULE),
        binding(b"key", Content(b"content"), "r2", RULE),
        binding(b"keyc", Content(b"ontent"), "r1", RULE),
        binding(b"key", Content(b"content"), "r1", replace(RULE, quorum=1)),
        binding(b"key", Content(b"content"), "r1", replace(RULE, approvers=("uid:1",))),
        binding(b"key", Content(b"content"), "r1", replace(RULE, approvers=("uid:1', 'role:lead",))),
    ],
    ids=range(8),
)
def test_key_content_revision_and_rule_are_bound(other: str) -> None:
    assert other != BOUND


def test_the_order_of_approvers_and_the_time_they_have_are_not() -> None:
    rule = Approval(30.0, ("role:lead", "uid:1"), 2)
    assert binding(b"key", Content(b"content", b"shown otherwise"), "r1", rule) == BOUND


def test_what_is_shown_is_made_only_for_what_is_asked() -> None:
    assert execution(REQUEST, lambda: b"{}").shown == b"{}"
