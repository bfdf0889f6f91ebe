from pathlib import Path

import pytest

from sandboxd import config


def test_ordinary_user_has_paths_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", "/run/user/7")
    monkeypatch.setenv("XDG_STATE_HOME", "/home/x/.state")
    found = config.load(None, as_root=False)
    assert found.socket_path == Path("/run/user/7/sandboxd/sandboxd.sock")
    assert found.state_dir == "/home/x/.state/sandboxd"


def test_relative_xdg_directories_are_ignored_as_their_standard_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/x")
    monkeypatch.setenv("XDG_RUNTIME_DIR", "run")
    monkeypatch.setenv("XDG_STATE_HOME", "state")
    found = config.load(None, as_root=False)
    assert found.state_dir == "/home/x/.local/state/sandboxd"
    assert found.socket_path == Path("/home/x/.local/state/sandboxd/run/sandboxd.sock")
