from contextlib import closing
from pathlib import Path

import pytest
from typer.testing import CliRunner

from sandboxd.audit.key import open_key, public_pem
from sandboxd.audit.store import DOCUMENTS, Store
from sandboxd.cli.node import app
from sandboxd.config import Config


def test_valid_configuration_says_where_it_listens(tmp_path: Path) -> None:
    file = tmp_path / "c.yaml"
    file.write_text("listen: [{unix: /run/x/s}]\n")
    done = CliRunner().invoke(app, ["config", "validate", str(file)])
    assert done.exit_code == 0
    assert "unix:/run/x/s" in done.output


def test_each_mistake_of_a_configuration_has_its_line(tmp_path: Path) -> None:
    file = tmp_path / "c.yaml"
    file.write_text("state_dir: /s\nlissen: 1\nlog: {level: loud}\n")
    done = CliRunner().invoke(app, ["config", "validate", str(file)])
    assert done.exit_code == 1
    assert f"{file}:2" in done.output
    assert f"{file}:3" in done.output


def test_serve_refuses_a_wrong_configuration_before_anything_starts(tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["serve", "--config", str(tmp_path / "none")])
    assert done.exit_code == 78
    assert "cannot read" in done.output


def test_serve_hands_the_loaded_configuration_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[Config, Path | None]] = []
    monkeypatch.setattr("sandboxd.cli.serve.become_spawner", lambda *call: seen.append(call))
    file = tmp_path / "c.yaml"
    file.write_text("state_dir: /s\n")
    assert CliRunner().invoke(app, ["serve", "--config", str(file)]).exit_code == 0
    assert (seen[0][0].state_dir, seen[0][1]) == ("/s", file)


def test_check_exits_with_what_the_report_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sandboxd.cli.check.report", lambda config, *, as_json: 2 if as_json else 1)
    assert CliRunner().invoke(app, ["check"]).exit_code == 1
    assert CliRunner().invoke(app, ["check", "--json"]).exit_code == 2


def test_check_of_a_wrong_configuration_is_told_from_a_node_that_lacks_something(tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text("lissen: x\n")
    done = CliRunner().invoke(app, ["check", "--json", "--config", str(tmp_path / "c.yaml")])
    assert (done.exit_code, done.stdout) == (78, "")
    assert "unknown key" in done.stderr


def test_document_of_the_configured_node_is_shown(tmp_path: Path) -> None:
    with closing(Store(tmp_path / "state" / DOCUMENTS, fsync=False)) as store:
        digest = store.put(b'{"profile":"default"}')
    (tmp_path / "c.yaml").write_text(f"state_dir: {tmp_path}/state\n")
    done = CliRunner().invoke(app, ["audit", "show", digest, "--config", str(tmp_path / "c.yaml")])
    assert (done.exit_code, done.stdout) == (0, '{"profile":"default"}\n')
    done = CliRunner().invoke(app, ["audit", "show", "0" * 64, "--config", str(tmp_path / "c.yaml")])
    assert (done.exit_code, done.stdout) == (1, "")
    assert done.stderr.startswith("sandboxd: no such document")


def test_the_journals_public_key_is_printed_and_no_key_is_a_mistake(tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text(f"state_dir: {tmp_path}\n")
    command = ["audit", "key", "--config", str(tmp_path / "c.yaml")]
    done = CliRunner().invoke(app, command)
    assert (done.exit_code, "sandboxd: no key in" in done.output) == (1, True)
    open_key(tmp_path)
    done = CliRunner().invoke(app, command)
    assert (done.exit_code, done.output.encode()) == (0, public_pem(tmp_path))
