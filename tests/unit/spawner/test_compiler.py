"""The profile compiler as a child that fails, hangs, babbles or floods. Its part is played by functions in a fork."""

import os
import selectors
import signal
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from sandboxd.spawner import children, compiler, options, template
from sandboxd.spawner.template import Template
from tests.unit.spawner.spawner_rig import TEMPLATE

OPTIONS = options.parse(["--state-dir", "/var/lib/s", "--runtime-dir", "/run/s", "--profile-path", "/etc/p"])
Part = Callable[[int], None]


@dataclass
class Site:
    stage: None = None
    compiler: children.Identity = field(default_factory=lambda: children.Identity(None, None))
    memfd: str = "seal"


class Play:
    """Compilers play the given parts in turn; `told` is what came of each."""

    def __init__(self) -> None:
        self.parts: list[Part] = []
        self.arguments: list[str] = []
        self.pids: list[int] = []
        self.told: list[tuple[Template, ...] | str] = []
        self.selector = selectors.DefaultSelector()
        self.compiler = compiler.Compiler(OPTIONS, Site(), self.selector)  # type: ignore[arg-type]

    def start(
        self,
        stage: object,
        identity: children.Identity,
        arguments: Sequence[str],
        environment: Mapping[str, str],
        descriptors: Mapping[int, int],
        readable: Sequence[Path],
    ) -> children.Child:
        self.arguments = list(arguments)
        part = self.parts.pop(0)
        pid = os.fork()
        if pid == 0:
            try:
                part(descriptors[1])
            finally:
                os._exit(1)
        self.pids.append(pid)
        return children.Child(pid, os.pidfd_open(pid))

    def begin(self) -> None:
        self.compiler.begin(self.told.append, self.told.append)

    def until(self, count: int) -> None:
        while len(self.told) < count:
            ready = self.selector.select(30)
            assert ready, "nothing happens any more"
            for key, _ in ready:
                if self.selector.get_map().get(key.fd) is key:
                    key.data()


@pytest.fixture
def play(monkeypatch: pytest.MonkeyPatch) -> Iterator[Play]:
    made = Play()
    monkeypatch.setattr(children, "start", made.start)
    yield made
    made.compiler.close()
    for pid in made.pids:
        with pytest.raises(ChildProcessError):
            os.waitpid(pid, os.WNOHANG)  # each was reaped


def _write(fd: int, data: bytes) -> None:
    while data:
        data = data[os.write(fd, data) :]


def _good(fd: int) -> None:
    _write(fd, template.dump((TEMPLATE,)).encode())
    os._exit(0)


def _fails(fd: int) -> None:
    _write(fd, template.dump((TEMPLATE,)).encode())
    os._exit(1)


def _killed(fd: int) -> None:
    _write(fd, template.dump((TEMPLATE,)).encode())
    os.kill(os.getpid(), signal.SIGKILL)


def _babbles(fd: int) -> None:
    _write(fd, b"{}\xff")
    os._exit(0)


def _floods(fd: int) -> None:
    while True:
        _write(fd, bytes(1 << 20))


def _hangs(fd: int) -> None:
    os.close(fd)  # which looks like its end
    while True:
        signal.pause()


def _large(fd: int) -> None:
    many = [TEMPLATE] * 500
    _write(fd, template.dump(tuple(many)).encode())
    os._exit(0)


def test_templates_come_out_and_the_daemons_directories_are_protected(play: Play) -> None:
    play.parts = [_good]
    play.begin()
    play.until(1)
    assert play.told == [(TEMPLATE,)]
    assert play.arguments == [
        "-m", "sandboxd.profile.compile", "--memfd", "seal", "--protect", "/var/lib/s", "--protect", "/run/s", "/etc/p",
    ]  # fmt: skip
    assert play.compiler.deadline is None


def test_output_of_many_pipes_full_comes_whole(play: Play) -> None:
    play.parts = [_large]
    play.begin()
    play.until(1)
    assert len(play.told[0]) == 500


@pytest.mark.parametrize(
    ("part", "complaint"),
    [(_fails, "do not compile"), (_killed, "do not compile"), (_babbles, "nonsense"), (_floods, "more than")],
)
def test_child_that_goes_wrong_is_a_failure_and_the_next_one_is_not(part: Part, complaint: str, play: Play) -> None:
    play.parts = [part, _good]
    play.begin()
    play.until(1)
    assert complaint in play.told[0]
    play.begin()
    play.until(2)
    assert play.told[1] == (TEMPLATE,)


def test_child_that_hangs_is_killed_once_its_time_is_over(play: Play) -> None:
    play.parts = [_hangs]
    play.begin()
    assert play.compiler.deadline is not None
    assert 0 < play.compiler.deadline - time.monotonic() <= 300
    play.compiler.expire()
    play.until(1)
    assert "took longer than 300 s" in play.told[0]


def test_request_during_a_run_gets_a_run_of_its_own(play: Play) -> None:
    """The files may have changed since the first began."""
    play.parts = [_good, _fails]
    for _ in range(3):
        play.begin()
    play.until(3)
    assert play.told[0] == (TEMPLATE,)
    assert play.told[1] == play.told[2] == "the profiles do not compile; see above"
    assert len(play.pids) == 2


def test_requests_do_not_wait_without_bound(play: Play) -> None:
    play.parts = [_hangs, _good]
    for _ in range(66):
        play.begin()
    assert play.told == ["too many reloads wait already; try again"]
    play.compiler.expire()
    play.until(66)


def test_close_ends_a_run(play: Play) -> None:
    play.parts = [_hangs]
    play.begin()
    assert len(play.pids) == 1
