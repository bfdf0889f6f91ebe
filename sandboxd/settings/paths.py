"""Where things are unless the configuration says otherwise. Reads the environment, opens nothing."""

import os
from pathlib import Path
from typing import Literal

from sandboxd.errors import ConfigInvalid

_PACKAGE = Path(__file__).parent.parent


def runtime_directory(*, as_root: bool) -> Path:
    """Where the socket lives by default: /run/sandboxd as root, else below XDG_RUNTIME_DIR."""
    if as_root:
        return Path("/run/sandboxd")
    base = os.environ.get("XDG_RUNTIME_DIR", "")
    return Path(base) / "sandboxd" if base.startswith("/") else state_directory(as_root=False) / "run"


def state_directory(*, as_root: bool) -> Path:
    """Where the journal lives by default: /var/lib/sandboxd as root, else below XDG_STATE_HOME."""
    if as_root:
        return Path("/var/lib/sandboxd")
    base = os.environ.get("XDG_STATE_HOME", "")
    if base.startswith("/"):
        return Path(base) / "sandboxd"
    try:
        return Path.home() / ".local/state/sandboxd"
    except RuntimeError as error:
        raise ConfigInvalid("this user has no home directory; set state_dir, XDG_STATE_HOME or HOME") from error


def shipped(kind: Literal["profiles", "policies"]) -> Path:
    """The shipped data: inside the package when installed, beside it in a checkout."""
    installed = _PACKAGE / "_data" / kind
    return installed if installed.is_dir() else _PACKAGE.parent / kind
