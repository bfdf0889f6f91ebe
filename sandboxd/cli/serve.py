"""Hands over to the spawner: a fresh interpreter with plain arguments and an environment built from nothing.

Must never pass on a variable that is not listed: sandboxes are forked from what is started here. Called by
`sandboxd serve`.
"""

import os
import sys
from pathlib import Path
from typing import NoReturn

from sandboxd.config import Config
from sandboxd.spawner.options import own_environment


def spawner_arguments(config: Config, path: Path | None) -> list[str]:
    """The spawner's own command line: it reads no configuration, since it parses nothing but arguments."""
    process = config.runtimes.process
    arguments = ["--config", str(path.absolute())] if path is not None else []
    arguments += ["--state-dir", config.state_dir, "--runtime-dir", str(config.socket_path.parent)]
    for directory in config.profile_paths:
        arguments += ["--profile-path", str(directory)]
    for directory in config.policy.bundle_paths:
        arguments += ["--readable", str(directory)]
    arguments += ["--id-start", str(process.ids.start), "--id-count", str(process.ids.count)]
    arguments += ["--daemon-user", process.daemon_user, "--blank-stock", str(process.blank_stock)]
    return [*arguments, "--drain-grace-seconds", str(config.drain_grace_seconds)]


def become_spawner(config: Config, path: Path | None) -> NoReturn:
    """Replaces this process, so that a service manager watches the spawner itself."""
    command = [sys.executable, "-I", "-m", "sandboxd.spawner", *spawner_arguments(config, path)]
    os.execve(sys.executable, command, own_environment(os.environ))
