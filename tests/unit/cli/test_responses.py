import json
from datetime import UTC, datetime
from pathlib import Path

import pytest

from sandboxd.cli import responses
from sandboxd.cli.mistake import Mistake
from sandboxd.client.response import Effect, ExecutionEffect, Quarantine, Target
from sandboxd.client.sync import Client
from sandboxd.rpc.v1 import sandbox_pb2
from tests.fakes.server import FakeDaemon, serving

ONE = Quarantine("local", "", datetime(2026, 1, 1, tzinfo=UTC), "uid:0", "", "")


def test_target_is_what_was_named(daemon: FakeDaemon, tmp_path: Path) -> None:
    daemon.executions = (sandbox_pb2.Execution(execution_id="e" * 32, sandbox_id="5" * 32),)
    with serving(daemon, tmp_path / "x") as address, Client(address) as client:
        assert responses.named(client, "5" * 32, "", "") == Target(sandbox_id="5" * 32)
        assert responses.named(client, "a" * 32, "", "") == Target(execution_id="a" * 32)
        assert responses.named(client, "", "local", "") == Target(tenant="local")
        assert responses.named(client, "", "", "uid:7") == Target(subject="uid:7")
        with pytest.raises(Mistake):
            responses.named(client, "", "", "")


def test_effects_and_quarantines_are_shown(capsys: pytest.CaptureFixture[str]) -> None:
    responses.show_effects([ExecutionEffect("e", Effect.HELD)], as_json=False)
    responses.show_quarantines([ONE], as_json=False)
    shown = capsys.readouterr().out
    assert "held" in shown and "all" in shown and "2026-01-01 00:00:00Z" in shown
    responses.show_quarantines([ONE], as_json=True)
    assert json.loads(capsys.readouterr().out)[0]["since"] == "2026-01-01T00:00:00+00:00"
