"""Fixtures that every folder of tests may use, and the rule that in CI a missing real component is a failure.

`daemon_root`, `daemon_rootless` and `daemon_rootless_subuid` are one running `sandboxd serve` each for the session.
`daemon` runs a test once with each of them, `client` is a client of that daemon. A test that ends or reloads its daemon
takes `tests.daemon.start_daemon` instead, so that no other test sees it.
"""

import asyncio
from collections.abc import Callable, Generator, Iterator, Mapping

import pytest
import uvloop

from sandboxd.client import Client
from tests import skips
from tests.daemon import Mode, RunningDaemon, start_daemon
from tests.modes import EACH, need_mode


def pytest_asyncio_loop_factories() -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    """Tests run on the loop that the daemon runs on."""
    return {"uvloop": uvloop.new_event_loop}


@pytest.fixture(scope="session")
def daemon_root() -> Iterator[RunningDaemon]:
    """A daemon started as root: an own host uid for each sandbox, cgroups of whatever version the machine has."""
    need_mode(Mode.ROOT)
    with start_daemon(Mode.ROOT) as daemon:
        yield daemon


@pytest.fixture(scope="session")
def daemon_rootless() -> Iterator[RunningDaemon]:
    """A daemon of an ordinary user with a single id: user namespaces only. Run by root, it has a uid of nobody else."""
    with start_daemon(Mode.ROOTLESS) as daemon:
        yield daemon


@pytest.fixture(scope="session")
def daemon_rootless_subuid() -> Iterator[RunningDaemon]:
    """A daemon of an ordinary user with 65536 subordinate ids, mapped by newuidmap."""
    need_mode(Mode.ROOTLESS_SUBUID)
    with start_daemon(Mode.ROOTLESS_SUBUID) as daemon:
        yield daemon


@pytest.fixture(scope="session", params=EACH, ids=str)
def daemon(request: pytest.FixtureRequest) -> RunningDaemon:
    """Each of the three daemons in turn; one that this machine cannot have skips its share with the reason."""
    fixture = {Mode.ROOT: "daemon_root", Mode.ROOTLESS: "daemon_rootless"}.get(request.param, "daemon_rootless_subuid")
    running = request.getfixturevalue(fixture)
    assert isinstance(running, RunningDaemon)
    return running


@pytest.fixture
def client(daemon: RunningDaemon) -> Iterator[Client]:
    """A connected client of `daemon`, so the test runs once per mode."""
    with daemon.client() as connected:
        yield connected


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    _refuse_skip(report)
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    report = yield
    _refuse_skip(report)
    return report


def _refuse_skip(report: pytest.TestReport | pytest.CollectReport) -> None:
    if skips.IN_CI and report.skipped and not hasattr(report, "wasxfail") and isinstance(report.longrepr, tuple):
        reason = report.longrepr[2]
        if not skips.allowed_in_ci(reason):
            report.outcome = "failed"
            report.longrepr = (
                f"{reason}\nin CI a skip is a failure unless no install step could mend it (tests/skips.py)"
            )
