"""Fixtures of the attacks: `daemon` in each mode, `confined` with its client, and `outside`, where controls run.

That daemon has, beside the shipped profiles, those under which each refusal is on record. `outside` cannot be below
/tmp, which a control covers with a mount of its own.
"""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from sandboxd.client import Client
from tests.daemon import RunningDaemon, start_daemon
from tests.escape.confined import Confined
from tests.escape.trace import with_reporting_profiles
from tests.modes import EACH, need_mode


@pytest.fixture(scope="package", params=EACH, ids=str)
def daemon(request: pytest.FixtureRequest) -> Iterator[RunningDaemon]:
    need_mode(request.param)
    with with_reporting_profiles() as settings, start_daemon(request.param, settings) as running:
        yield running


@pytest.fixture
def confined(daemon: RunningDaemon, client: Client) -> Confined:
    return Confined(daemon, client)


@pytest.fixture
def outside() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="sandboxd-control-", dir="/var/tmp") as directory:
        yield Path(directory)
