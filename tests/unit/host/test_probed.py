import json
import math
from pathlib import Path

import pytest

from sandboxd.errors import RuntimeFailed
from sandboxd.host.probed import decode, probe
from sandboxd.model import Guarantee, Isolation, State

ANSWER: dict[str, object] = {
    "mode": "root",
    "refusal": "",
    "kernel": "6.1.0",
    "landlock_abi": 2,
    "memfd": "deny",
    "cgroup": {"version": "v2", "controllers": ["memory", "pids"], "reason": ""},
    "facts": [
        ["limit.memory", "enforced", "cgroup v2", ""],
        ["limit.cpus", "absent", "", "no cpu controller"],
        ["filesystem.root", "enforced", "pivot_root,mntns", ""],
    ],
}


def test_facts_become_rows() -> None:
    found = decode(json.dumps(ANSWER).encode())
    assert (found.mode, found.memfd, found.cgroup_version, found.cgroup_controllers) == (
        "root",
        "deny",
        "v2",
        ("memory", "pids"),
    )
    assert found.capabilities.isolation is Isolation.PROCESS
    assert found.capabilities.row(Guarantee.LIMIT_CPUS).state is State.ABSENT
    assert found.capabilities.row(Guarantee.LIMIT_CPUS).layers == ()
    assert found.capabilities.row(Guarantee.FILESYSTEM_ROOT).layers == ("pivot_root", "mntns")


@pytest.mark.parametrize(
    "output",
    [
        b"",
        b"[]",
        b"null",
        b'{"mode": "root"}',
        json.dumps({**ANSWER, "facts": [["no.guarantee", "enforced", "", ""]]}).encode(),
        json.dumps({**ANSWER, "facts": [["limit.cpus", "splendid", "", ""]]}).encode(),
        json.dumps({**ANSWER, "facts": [["limit.cpus", "enforced"]]}).encode(),
        json.dumps({**ANSWER, "facts": [[1, 2, 3, 4]]}).encode(),
        json.dumps({**ANSWER, "cgroup": "v2"}).encode(),
        json.dumps({**ANSWER, "landlock_abi": math.inf}).encode(),
        b"[" * 100_000,
    ],
)
def test_other_output_is_refused(output: bytes) -> None:
    with pytest.raises(RuntimeFailed, match="not understood"):
        decode(output)


def test_real_probe_has_a_row_for_each_guarantee() -> None:
    found = probe()
    assert {row.guarantee for row in found.capabilities.rows} == set(Guarantee)
    assert found.mode == found.capabilities.mode


def test_probe_that_dies_tells_its_last_words(tmp_path: Path) -> None:
    broken = tmp_path / "python"
    broken.write_text("#!/bin/sh\necho 'first line' >&2\necho 'ImportError: x' >&2\nexit 3\n")
    broken.chmod(0o755)
    with pytest.raises(RuntimeFailed, match="ended with 3: ImportError: x"):
        probe(str(broken))


def test_probe_that_cannot_start_is_said(tmp_path: Path) -> None:
    with pytest.raises(RuntimeFailed, match="did not run"):
        probe(str(tmp_path / "missing"))
