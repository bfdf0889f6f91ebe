"""The entry of the main process: what it lets into the processes that sandboxes are forked from."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests import proc
from tests.skips import need_root
from tests.unit.spawner import spawner_rig
from tests.unit.spawner.spawner_rig import TEMPLATE


def test_secret_in_the_environment_is_in_no_memory_of_the_spawner(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    need_root()
    monkeypatch.setenv("A_SECRET", "hunter2")
    with spawner_rig.start(tmp_path) as rig:
        rig.compile(TEMPLATE)  # now it is past its own exec
        environment = Path(f"/proc/{rig.process.pid}/environ").read_bytes()
    assert b"hunter2" not in environment
    assert b"PATH=" in environment


def test_strict_umask_does_not_close_the_stage_to_sandboxes(tmp_path: Path) -> None:
    need_root()
    before = os.umask(0o077)
    try:
        with spawner_rig.start(tmp_path) as rig:
            rig.compile(TEMPLATE)
            daemon = rig.daemon()
            sandbox = daemon.ready_sandbox()
            assert sandbox.run("/bin/sh", "-c", "umask").output == "0022\n"
            daemon.destroy(sandbox)
    finally:
        os.umask(before)


def test_spawner_is_not_dumpable(tmp_path: Path) -> None:
    """Its memory belongs to root alone: nobody of the same uid may look at it or trace it."""
    need_root()
    with spawner_rig.start(tmp_path) as rig:
        rig.compile(TEMPLATE)
        status = os.stat(f"/proc/{rig.process.pid}/environ")
        assert status.st_uid == 0
        daemon = rig.daemon()
        assert daemon.hello.mode == "root"


def test_hangup_during_the_start_is_a_reload_after_it(tmp_path: Path) -> None:
    need_root()
    with spawner_rig.start(tmp_path) as rig:
        proc.until(lambda: proc.blocks(rig.process.pid, signal.SIGHUP), "it takes no hangup yet")
        rig.signal(signal.SIGHUP)
        rig.compile(TEMPLATE)
        started = [rig.child("sandboxd.") for _ in range(2)]  # in whatever order they come to say so
        assert sorted(child.arguments.split()[1] for child in started) == [
            "sandboxd.daemon",
            "sandboxd.profile.compile",
        ]
        assert not proc.blocks(rig.process.pid, signal.SIGHUP)
        for child in started:
            child.end()


def test_start_that_is_refused_says_why_and_ends_with_1(tmp_path: Path) -> None:
    need_root()
    foreign = tmp_path / "state"
    foreign.mkdir()
    os.chown(foreign, 4242, 4242)
    command = [sys.executable, "-m", "sandboxd.spawner", "--state-dir", str(foreign), "--runtime-dir", str(tmp_path)]
    command += ["--id-start", str(spawner_rig.ID_START), "--id-count", "4096", "--daemon-user", "nobody-of-that-name"]
    command += ["--blank-stock", "1", "--drain-grace-seconds", "1"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 1
    assert "cannot start" in done.stderr
    assert "4242" in done.stderr
    assert "Traceback" not in done.stderr
