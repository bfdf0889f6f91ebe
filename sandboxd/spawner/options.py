"""The spawner's command line: what the configuration says about the privileged side, as plain arguments.

`sandboxd serve` reads the configuration and starts `python -m sandboxd.spawner` with these; standard library only.
"""

import argparse
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

_ID_START = 0x70000000  # above systemd's container range, below 2^31
_ID_COUNT = 16 * 4096
# LC_CTYPE: Python sets it by itself in the C locale (PEP 538).
_PASSED_ON = (
    "PATH",
    "LANG",
    "LC_ALL",
    "LC_CTYPE",
    "TZ",
    "HOME",
    "XDG_RUNTIME_DIR",
    "XDG_STATE_HOME",
    "XDG_CONFIG_HOME",
)
_OWN = (*_PASSED_ON, "NOTIFY_SOCKET")


@dataclass(frozen=True, slots=True)
class Options:
    config: Path | None
    state_dir: Path
    runtime_dir: Path
    profile_paths: tuple[Path, ...]
    readable: tuple[Path, ...]
    id_start: int
    id_count: int
    daemon_user: str
    blank_stock: int
    drain_grace_seconds: float
    environment: dict[str, str]

    def daemon_arguments(self) -> tuple[str, ...]:
        return ("--config", str(self.config)) if self.config else ()


def parse(arguments: Sequence[str]) -> Options:
    parser = argparse.ArgumentParser(prog="sandboxd-spawner", description=__doc__, allow_abbrev=False)
    parser.add_argument("--config", type=Path)
    parser.add_argument("--state-dir", type=Path, required=True)
    parser.add_argument("--runtime-dir", type=Path, required=True)
    parser.add_argument("--profile-path", type=Path, action="append", default=[])
    parser.add_argument("--readable", type=Path, action="append", default=[], help="what else the daemon must reach")
    parser.add_argument("--id-start", type=int, default=_ID_START)
    parser.add_argument("--id-count", type=int, default=_ID_COUNT)
    parser.add_argument("--daemon-user", default="sandboxd")
    parser.add_argument("--blank-stock", type=int, default=4)
    parser.add_argument("--drain-grace-seconds", type=float, default=30.0)
    parsed = parser.parse_args(arguments)
    readable = [parsed.state_dir, parsed.runtime_dir, *parsed.profile_path, *parsed.readable]
    return Options(
        config=parsed.config.absolute() if parsed.config else None,
        state_dir=parsed.state_dir.absolute(),
        runtime_dir=parsed.runtime_dir.absolute(),
        profile_paths=tuple(path.absolute() for path in parsed.profile_path),
        readable=tuple(path.absolute() for path in (*readable, *([parsed.config] if parsed.config else []))),
        id_start=parsed.id_start,
        id_count=parsed.id_count,
        daemon_user=parsed.daemon_user,
        blank_stock=parsed.blank_stock,
        drain_grace_seconds=parsed.drain_grace_seconds,
        environment=fresh_environment(),
    )


def fresh_environment() -> dict[str, str]:
    """What a child of ours may see of our environment."""
    return {name: os.environ[name] for name in _PASSED_ON if name in os.environ}


def own_environment(environ: Mapping[str, str]) -> dict[str, str]:
    """What the spawner itself is started with: built from nothing, since sandboxes are forked from it."""
    return {name: environ[name] for name in _OWN if name in environ}


def foreign_variables() -> list[str]:
    """Names in our environment that have no business in a process from which sandboxes are forked."""
    return sorted(set(os.environ) - set(_OWN))
