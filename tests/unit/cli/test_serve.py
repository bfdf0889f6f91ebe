import os
from pathlib import Path

import pytest

from sandboxd.cli import serve
from sandboxd.config import load, parse
from sandboxd.spawner import options


def test_spawner_understands_every_argument_and_gets_the_configured_values(tmp_path: Path) -> None:
    text = f"""
listen: [{{unix: {tmp_path}/run/s.sock}}]
state_dir: {tmp_path}/state
profiles: {{paths: [{tmp_path}/p1, {tmp_path}/p2]}}
policy: {{paths: [{tmp_path}/rego]}}
runtimes: {{process: {{ids: {{start: 100000, count: 1600}}, daemon_user: someone, blank_stock: 7}}}}
drain_grace_seconds: 3.5
"""
    found = options.parse(serve.spawner_arguments(parse(text.encode(), "t"), tmp_path / "c.yaml"))
    assert (found.config, found.state_dir, found.runtime_dir) == (
        tmp_path / "c.yaml",
        tmp_path / "state",
        tmp_path / "run",
    )
    assert found.profile_paths == (tmp_path / "p1", tmp_path / "p2")
    assert tmp_path / "rego" in found.readable
    assert (found.id_start, found.id_count, found.daemon_user) == (100000, 1600, "someone")
    assert (found.blank_stock, found.drain_grace_seconds) == (7, 3.5)


def test_defaults_name_no_configuration_file() -> None:
    assert "--config" not in serve.spawner_arguments(load(None), None)


def test_environment_of_the_spawner_holds_no_secret() -> None:
    environ = {"PATH": "/bin", "AWS_SECRET_ACCESS_KEY": "s", "LD_PRELOAD": "x", "PYTHONPATH": "y", "NOTIFY_SOCKET": "n"}
    assert options.own_environment(environ) == {"PATH": "/bin", "NOTIFY_SOCKET": "n"}


def test_spawner_finds_nothing_foreign_in_what_is_passed_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.environ", options.own_environment(os.environ))
    assert options.foreign_variables() == []


def test_process_becomes_an_isolated_spawner(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[str, list[str], dict[str, str]]] = []
    monkeypatch.setattr("os.execve", lambda *call: seen.append(call))
    monkeypatch.setenv("SECRET", "s")
    serve.become_spawner(load(None), None)
    program, command, environment = seen[0]
    assert command[:4] == [program, "-I", "-m", "sandboxd.spawner"]
    assert "SECRET" not in environment
