import base64
import json

import pytest

from sandboxd.cli.explain import error_json, explain, result_json
from sandboxd.client import (
    EndReason,
    Enforcement,
    EnforcementRow,
    NotFound,
    OutputFile,
    PolicyDenied,
    Redaction,
    Result,
    State,
    Usage,
    Violation,
)

RESULT = Result(
    execution_id="e1",
    end_reason=EndReason.VIOLATION,
    exit_code=None,
    signal=31,
    usage=Usage(wall_seconds=1.5, peak_memory_bytes=2048),
    enforcement=Enforcement("process", (EnforcementRow("limit.pids", State.ABSENT, (), "no cgroup"),), ("weak",)),
    stdout=b"ok\xff",
    limits_hit=("pids",),
    violations=(Violation("seccomp", "bpf", "call 321"),),
    files=(OutputFile("a", b"\x00", 0o644),),
    message_for_agent="do not",
    redactions=(Redaction("jwt", 17),),
)


def test_json_carries_every_field_of_the_result() -> None:
    told = json.loads(result_json(RESULT))
    assert (told["end_reason"], told["exit_code"], told["signal"]) == ("VIOLATION", None, 31)
    assert (told["stdout"], base64.b64decode(told["stdout_base64"])) == ("ok\ufffd", b"ok\xff")
    assert told["violations"] == [{"layer": "seccomp", "code": "bpf", "detail": "call 321"}]
    assert told["files"] == [{"path": "a", "content_base64": "AA==", "mode": 0o644}]
    assert (told["usage"]["wall_seconds"], told["usage"]["peak_pids"], told["limits_hit"]) == (1.5, None, ["pids"])
    assert told["redactions"] == [{"pattern": "jwt", "matches": 17}]
    assert set(Result.__dataclass_fields__) <= set(told)


def test_json_of_an_error_names_its_kind_and_reason() -> None:
    texts = {"reason": "r", "message_for_agent": "m", "execution_id": "e"}
    told = json.loads(error_json(PolicyDenied("no", **texts, approval_id="a")))
    assert told == {"error": {"kind": "PolicyDenied", "message": "no", **texts, "approval_id": "a"}}
    told = json.loads(error_json(NotFound("no", **texts)))
    assert told == {"error": {"kind": "NotFound", "message": "no", **texts, "approval_id": ""}}


def test_explanation_goes_to_stderr_and_leaves_nothing_out(capsys: pytest.CaptureFixture[str]) -> None:
    explain(RESULT)
    printed = capsys.readouterr()
    assert printed.out == ""
    for expected in (
        "VIOLATION",
        "31",
        "pids",
        "seccomp: bpf: call 321",
        "do not",
        "jwt: 17",
        "2 KiB",
        "absent",
        "no cgroup",
        "weak",
    ):
        assert expected in printed.err
