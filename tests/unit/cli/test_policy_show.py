import json
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from sandboxd.cli.policy_show import show_policy
from sandboxd.client.policy import Policy, ShadowPolicy
from sandboxd.rpc.v1 import policy_pb2
from tests.fakes.server import FakeDaemon
from tests.unit.cli.conftest import Sandboxctl

WHEN = datetime(2026, 1, 2, tzinfo=UTC)
POLICY = Policy(
    "rego", "r7", 7, WHEN, (("p.rego", "ab" * 32),), "it is older", WHEN, ShadowPolicy("r8", 5, 4, 3, 2, "")
)


def test_table_says_what_decides_and_what_is_wrong(capsys: pytest.CaptureFixture[str]) -> None:
    show_policy(POLICY, as_json=False)
    told = capsys.readouterr().out
    for part in (
        "rego", "r7", "2026-01-02", "it is older", "r8: 5 compared, 4 differed, 3 not answered, 2 dropped", "p.rego",
        "ab" * 32,
    ):  # fmt: skip
        assert part in told


def test_what_there_is_not_has_no_row(capsys: pytest.CaptureFixture[str]) -> None:
    show_policy(replace(POLICY, version=0, files=(), reload_error="", shadow=None), as_json=False)
    told = capsys.readouterr().out
    assert all(part not in told for part in ("release", "failed", "shadow", "SHA-256", "breaker"))
    show_policy(replace(POLICY, engine="opa", breaker="half_open"), as_json=False)
    assert "half_open" in capsys.readouterr().out
    show_policy(replace(POLICY, shadow=ShadowPolicy("", 0, 0, 0, 0, "it is broken")), as_json=False)
    assert "cannot be loaded: it is broken" in capsys.readouterr().out


def test_json_has_every_field(capsys: pytest.CaptureFixture[str]) -> None:
    show_policy(POLICY, as_json=True)
    told = json.loads(capsys.readouterr().out)
    assert (told["version"], told["since"], told["files"]) == (7, str(WHEN), [["p.rego", "ab" * 32]])
    assert told["shadow"]["dropped"] == 2


def test_command_asks_the_node(sandboxctl: Sandboxctl, daemon: FakeDaemon) -> None:
    daemon.policy = policy_pb2.Policy(engine="rego", revision="r\x1b9")
    done = sandboxctl("policy", "show")
    assert (done.returncode, done.stderr) == (0, b"")
    assert b"r\\x1b9" in done.stdout
