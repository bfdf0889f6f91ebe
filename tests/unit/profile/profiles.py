"""Profiles for the tests of this folder: the shipped ones, and small ones written on the spot."""

from functools import cache
from pathlib import Path

from sandboxd.model import EnforcementRow, Guarantee, Isolation, RuntimeCapabilities, State
from sandboxd.profile.load import ProfileSet, load_profiles
from sandboxd.profile.resolve import ResolvedProfile

SHIPPED = Path(__file__).resolve().parents[3] / "profiles"

COMPLETE = """\
apiVersion: sandboxd.io/v1
kind: SandboxProfile
metadata:
  name: small
spec:
  description: a small profile of the tests
  isolation: process
  root:
    binds:
      - {source: /usr, executable: true, why: programs of the host}
  workspace: {executable: false}
  proc: subset
  network: none
  cwd: /workspace
  seccomp:
    allow:
      - {names: [execve, exit_group, read, write], why: the least that runs}
  landlock: {scopes: true}
  limits: {wall_seconds: 5, idle_seconds: 0, cpu_seconds: 5, cpus: 1, memory_bytes: 64MiB, pids: 8, open_files: 64,
           file_size_bytes: 1MiB, workspace_bytes: 1MiB, workspace_inodes: 64, tmp_bytes: 1MiB, tmp_inodes: 64,
           stdout_bytes: 1KiB, stderr_bytes: 1KiB, output_bytes: 1MiB, output_files_bytes: 1MiB, output_files: 4,
           io_read_bytes_per_second: 0, io_write_bytes_per_second: 0}
  enforcement: {default: best_effort}
"""


@cache
def shipped() -> ProfileSet:
    return load_profiles([SHIPPED])


def profile(name: str = "default") -> ResolvedProfile:
    return shipped().get(name)


def small(tmp_path: Path, old: str = "", new: str = "") -> ResolvedProfile:
    """The complete small profile with one piece of its text replaced."""
    assert old in COMPLETE
    (tmp_path / "small.yaml").write_text(COMPLETE.replace(old, new) if old else COMPLETE)
    return load_profiles([tmp_path / "small.yaml"]).get("small")


def child(spec: str, name: str = "child", extends: str = "small") -> str:
    """A profile that extends another; `spec` is indented by two."""
    return (
        f"apiVersion: sandboxd.io/v1\nkind: SandboxProfile\nmetadata: {{name: {name}}}\n"
        f"spec:\n  description: a child of the tests\n  extends: {extends}\n{spec}"
    )


def capabilities(**states: State) -> RuntimeCapabilities:
    """A node that enforces everything but what is named, by the name of the Guarantee's member."""
    rows = (
        EnforcementRow(
            guarantee,
            states.get(guarantee.name, State.ENFORCED),
            ("kernel",),
            "" if guarantee.name not in states else "the test says so",
        )
        for guarantee in Guarantee
    )
    return RuntimeCapabilities(Isolation.PROCESS, "root", tuple(rows))
