"""Fixtures of the attacks: `confined`, a daemon in each mode with its client, and `outside`, where controls run.

The latter cannot be below /tmp, which a control covers with a mount of its own.
"""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from sandboxd.client import Client
from tests.daemon import RunningDaemon
from tests.escape.confined import Confined


@pytest.fixture
def confined(daemon: RunningDaemon, client: Client) -> Confined:
    return Confined(daemon, client)


@pytest.fixture
def outside() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="sandboxd-control-", dir="/var/tmp") as directory:
        yield Path(directory)
