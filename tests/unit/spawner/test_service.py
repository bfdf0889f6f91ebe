"""The main process's loop, with a daemon that behaves and with one that was taken over."""

import contextlib
import errno
import os
import select
import shutil
import signal
import socket
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

from sandboxd.spawner import template, wire
from sandboxd.spawner.cgroup_base import NoTree
from sandboxd.spawner.ids import IdPool
from sandboxd.spawner.living import Living
from sandboxd.spawner.options import Options
from sandboxd.spawner.outbox import Outbox
from sandboxd.spawner.service import Service
from sandboxd.spawner.site import Site
from tests import in_flight, reachable
from tests.skips import need_root
from tests.unit.spawner import spawner_rig
from tests.unit.spawner.spawner_rig import CLAIM, LAUNCH, TEMPLATE, Daemon, Rig, launch

UID = 64_415
AS_USER = ("/usr/bin/setpriv", f"--reuid={UID}", f"--regid={UID}", "--clear-groups")
RECVMSG = "47"  # of x86-64


def test_nothing_is_imported_once_the_spawner_is_on_the_stage(shared_rig: Rig, spawner: Daemon) -> None:
    """A whole life, with failures: on the stage there are no files to import from."""
    sandbox = spawner.ready_sandbox()
    sandbox.run("/bin/true")
    sandbox.run("no-such-program")
    sandbox.ask(wire.Collect(1, ("**/*.[!a]?", "["), 10, 1000, 0))
    spawner.destroy(sandbox)
    spawner.peer.send(replace(LAUNCH, template="no such"))
    spawner.peer.expect(wire.Refused)
    assert shared_rig.imported() == []


# --- what ends the spawner, and what does not


def _daemon(rig: Rig) -> Daemon:
    rig.compile(TEMPLATE)
    return rig.daemon()


@pytest.mark.parametrize(
    "packet",
    [
        b"garbage",
        b'{"type":"Shutdown"}',
        b'{"type":"Kill"}',
        b'{"type":"Kill","sandbox_id":1}',
        '{"type":"Kill","sandbox_id":"x"}'.encode("utf-16"),
        b'{"type": "@memfd", "size"',
        b'{"type": "@memfd", "size": 60000}',
        b'{"type":"Answer","request_id":1,"errno":0,"message":"","skipped":[]}',
        b"[" * 40000,
        b'{"type":"Reload","request_id":' + b"9" * 5000 + b"}",
    ],
    ids=lambda packet: repr(packet[:30]),
)
def test_daemon_that_breaks_the_protocol_is_killed_and_its_sandboxes_handed_to_the_next(
    packet: bytes, tmp_path: Path
) -> None:
    need_root()
    with spawner_rig.start(tmp_path) as rig:
        daemon = _daemon(rig)
        daemon.peer.send(wire.Ready("serving"))
        sandbox = daemon.ready_sandbox()
        daemon.peer.sock.send(packet)
        successor = rig.daemon()
        assert successor.hello.living == 1
        adopted, fds = successor.peer.expect(wire.Adopt)
        again = successor.sandbox(adopted, fds)
        assert (again.sandbox_id, again.host_uid) == (sandbox.sandbox_id, sandbox.host_uid)
        assert again.run("/bin/echo", "still here").output == "still here\n"
        sandbox.close()


def test_daemon_that_passes_a_pipe_as_a_large_message_is_killed_not_waited_for(rig: Rig) -> None:
    daemon = _daemon(rig)
    daemon.peer.send(wire.Ready("serving"))
    read, write = os.pipe()
    socket.send_fds(daemon.peer.sock, [b'{"type": "@memfd", "size": 60000}'], [read])
    rig.daemon()
    os.close(read)
    os.close(write)


def test_answer_to_a_dead_daemon_never_reaches_its_successor(rig: Rig) -> None:
    """Both count their requests from 1: the successor would take a foreign sandbox for its own."""
    daemon = _daemon(rig)
    daemon.peer.send(wire.Ready("serving"))
    for number in range(1, 21):
        daemon.peer.send(launch(number))
    daemon.child.end(1)
    daemon.peer.close()
    successor = rig.daemon()
    adopted = {successor.peer.expect(wire.Adopt)[0].sandbox_id for _ in range(successor.hello.living)}
    sandbox = successor.ready_sandbox(replace(LAUNCH, request_id=1))
    assert sandbox.sandbox_id == LAUNCH.sandbox_id
    assert len(adopted) == successor.hello.living < 20


def test_daemon_that_never_reads_is_not_answered_without_bound(rig: Rig) -> None:
    daemon = _daemon(rig)
    daemon.peer.sock.setblocking(False)
    sent = 0
    with contextlib.suppress(BlockingIOError):
        while sent < 20_000:
            daemon.peer.send(replace(LAUNCH, request_id=sent + 1, template="x"))
            sent += 1
    assert sent < 20_000
    daemon.peer.sock.settimeout(60)
    assert [daemon.peer.expect(wire.Refused)[0].request_id for _ in range(sent)] == list(range(1, sent + 1))


@pytest.fixture
def rootless_rig() -> Iterator[Rig]:
    """One whose sandboxes share its own uid and its limits, as on a node without subordinate ids."""
    need_root()
    within = (*reachable.prefix(spawner_rig.ROOT), "/usr/bin/prlimit", "--nofile=300:300", *AS_USER)
    directory = Path(tempfile.mkdtemp(prefix="sandboxd-test-", dir="/tmp"))
    os.chown(directory, UID, UID)
    try:
        with spawner_rig.start(directory, "--blank-stock", "1", within=within) as started:
            yield started
    finally:
        shutil.rmtree(directory)


def test_launch_that_no_descriptor_can_be_sent_for_is_refused(rootless_rig: Rig) -> None:
    """A program with the spawner's own uid may have as many under way as the kernel allows that user."""
    rootless_rig.compile(TEMPLATE)
    daemon = rootless_rig.daemon()
    assert daemon.hello.mode == "rootless-single"
    daemon.peer.expect(wire.Offered)
    with in_flight.under_way(UID, in_flight.may_have_open(rootless_rig.process.pid) + 1):
        daemon.peer.send(LAUNCH)
        refused, _ = daemon.peer.expect(wire.Refused)
        assert (refused.request_id, refused.reason) == (LAUNCH.request_id, "launch_failed")
        assert os.strerror(errno.ETOOMANYREFS) in refused.message
    daemon.destroy(daemon.ready_sandbox())


def test_sandbox_whose_descriptors_cannot_be_sent_is_ended_and_its_launch_refused() -> None:
    """As when they are used up between its birth and the answer, which no test can time."""
    killed: list[str] = []
    site = SimpleNamespace(ids=IdPool(1000, 1000, 64, single=False), tree=NoTree("test"))
    service = Service(cast("Options", SimpleNamespace(blank_stock=0)), cast("Site", site), lambda line: None)
    living = SimpleNamespace(kill=lambda: killed.append(LAUNCH.sandbox_id))
    service._sandboxes.living[LAUNCH.sandbox_id] = cast("Living", living)
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs:
        service._outbox = Outbox(ours, service._undelivered)
        closed = os.dup(0)
        os.close(closed)
        service._send(wire.Launched(8, LAUNCH.sandbox_id, 7, ("pidfd",), ()), (closed,))
        answer = wire.receive(theirs)
    assert killed == [LAUNCH.sandbox_id]
    assert answer == (wire.Refused(8, "launch_failed", "[Errno 9] Bad file descriptor"), [])


def test_init_that_cannot_be_assigned_ends_with_its_sandbox(rootless_rig: Rig) -> None:
    """Here for one descriptor too many under way."""
    rootless_rig.compile(TEMPLATE)
    daemon = rootless_rig.daemon()
    offered, fds = daemon.peer.expect(wire.Offered)
    with in_flight.under_way(UID, in_flight.may_have_open(rootless_rig.process.pid) + 1):
        daemon.peer.send(replace(CLAIM, offer=offered.offer))
        ended, _ = daemon.peer.expect(wire.SandboxEnded)
        assert (ended.sandbox_id, ended.wait_status) == (LAUNCH.sandbox_id, -signal.SIGKILL)
    assert "cannot be assigned" in rootless_rig.log.read_text()
    wire.close_all(fds)
    daemon.destroy(daemon.ready_sandbox())


def test_offers_of_a_dead_daemon_are_made_to_its_successor_anew(rig: Rig) -> None:
    daemon = _daemon(rig)
    daemon.peer.send(wire.Ready("serving"))
    old = [daemon.peer.expect(wire.Offered)[0].offer for _ in range(2)]
    daemon.child.end(1)
    successor = rig.daemon()
    (first, fds), (second, more) = (successor.peer.expect(wire.Offered) for _ in range(2))
    assert not {first.offer, second.offer} & set(old)
    successor.peer.send(replace(LAUNCH, offer=old[0]))
    assert successor.peer.expect(wire.Refused)[0].reason == "launch_failed"
    sandbox = successor.claim(first, fds)
    assert sandbox.run("/bin/echo", "hello").output == "hello\n"
    successor.destroy(sandbox)
    wire.close_all(more)


def test_blank_that_is_withdrawn_by_a_reload_can_still_be_named_and_goes_when_returned(rig: Rig) -> None:
    daemon = _daemon(rig)
    (first, fds), (second, more) = (daemon.peer.expect(wire.Offered) for _ in range(2))
    daemon.peer.send(wire.Reload(9))
    rig.compile(replace(TEMPLATE, digest="c" * 64, name="other"))
    assert {daemon.peer.expect(wire.Withdrawn)[0].offer for _ in range(2)} == {first.offer, second.offer}
    sandbox = daemon.claim(first, fds)
    assert sandbox.run("/bin/echo", "hello").output == "hello\n"
    daemon.destroy(sandbox)
    pidfd = more[second.fd_names.index("pidfd")]
    assert not select.select([pidfd], [], [], 0)[0], "the control: it lives until it is returned"
    daemon.peer.send(wire.Returned(second.offer))
    assert select.select([pidfd], [], [], spawner_rig.WAIT_SECONDS)[0]
    wire.close_all(more)


def test_configuration_error_of_the_first_daemon_ends_the_spawner(rig: Rig) -> None:
    _daemon(rig).child.end(78)
    assert rig.wait() == 78


def test_daemon_that_never_gets_ready_is_started_five_times(rig: Rig) -> None:
    rig.compile(TEMPLATE)
    for _ in range(5):
        rig.daemon().child.end(3)
    assert rig.wait() == 3


def test_daemon_that_was_ready_is_started_again_whatever_its_status(rig: Rig) -> None:
    daemon = _daemon(rig)
    daemon.peer.send(wire.Ready("serving"))
    daemon.destroy(daemon.ready_sandbox())  # after it, Ready was read
    daemon.child.end(78)
    assert rig.daemon().hello.living == 0


def test_daemon_that_crashes_again_is_waited_with_and_no_sandbox_lives_unwatched_meanwhile(rig: Rig) -> None:
    first = _daemon(rig)
    first.peer.send(wire.Ready("serving"))
    survivor = first.ready_sandbox()
    first.child.end(70)
    second = rig.daemon()
    assert second.hello.living == 1, "the control: the first crash ends none"
    second.peer.send(wire.Ready("serving"))
    sandbox = second.ready_sandbox(launch(2))  # after it, Ready was read
    second.child.end(70)
    for handed in (survivor, sandbox):
        assert select.select([handed.pidfd], [], [], spawner_rig.WAIT_SECONDS)[0], "it is dead"
        handed.close()
    assert rig.daemon().hello.living == 0
    assert "ended with status 70 again; starting it in 0.1 seconds" in rig.log.read_text()


def test_daemon_that_is_given_up_is_told_with_its_end(rig: Rig) -> None:
    _daemon(rig).child.end(78)
    assert rig.wait() == 78
    assert "the daemon ended with status 78 before it was ready; giving up" in rig.log.read_text()


def test_first_profiles_that_do_not_compile_end_the_spawner(rig: Rig) -> None:
    rig.compile(TEMPLATE, status=1)
    assert rig.wait() == 78
    assert "do not compile" in rig.log.read_text()


def test_profile_that_this_host_cannot_show_ends_the_spawner(rig: Rig) -> None:
    missing = replace(TEMPLATE.view.binds[0], source="/no/such/directory", target="/x")
    rig.compile(replace(TEMPLATE, view=replace(TEMPLATE.view, binds=(missing,))))
    assert rig.wait() == 78
    assert "'/no/such/directory'" in rig.log.read_text()


# --- reload and drain


def test_reload_is_answered_with_the_new_names_and_the_former_stay_launchable(rig: Rig) -> None:
    daemon = _daemon(rig)
    daemon.peer.send(wire.Reload(9))
    rig.compile(replace(TEMPLATE, digest="c" * 64, name="other"))
    reloaded, _ = daemon.peer.expect(wire.Reloaded)
    assert reloaded == wire.Reloaded(9, (("other", "c" * 64),))
    daemon.destroy(daemon.ready_sandbox())
    daemon.destroy(daemon.ready_sandbox(replace(LAUNCH, template="c" * 64)))


@pytest.mark.parametrize("output", [b"", b"[]", b"\xff", b'{"templates": 3}', b"null", b"x" * 100_000])
def test_reload_that_fails_keeps_the_profiles(output: bytes, spawner: Daemon, shared_rig: Rig) -> None:
    spawner.peer.send(wire.Reload(9))
    shared_rig.compile(output=output)
    refused, _ = spawner.peer.expect(wire.Refused)
    assert (refused.request_id, refused.reason) == (9, "reload_failed")
    spawner.destroy(spawner.ready_sandbox())


def test_hangup_reloads_unasked(rig: Rig) -> None:
    daemon = _daemon(rig)
    rig.signal(signal.SIGHUP)
    rig.compile(TEMPLATE)
    assert daemon.peer.expect(wire.Reloaded)[0].request_id == 0


def test_reload_between_two_daemons_starts_only_one(rig: Rig) -> None:
    rig.compile(TEMPLATE)
    first = rig.daemon()
    rig.signal(signal.SIGHUP)
    compiler = rig.child("sandboxd.profile.compile")
    first.child.end(1)
    assert first.peer.is_closed()  # from here on the next start is due in half a second
    with open(compiler.given, "wb") as pipe:
        pipe.write(template.dump((TEMPLATE,)).encode())
    compiler.end()
    second = rig.daemon()
    second.destroy(second.ready_sandbox())
    rig.signal(signal.SIGTERM)
    second.peer.expect(wire.Drain)  # a third would have been waiting in front of this
    second.child.end()
    assert rig.wait() == 0


def test_term_drains_and_the_end_of_the_daemon_ends_all(rig: Rig) -> None:
    daemon = _daemon(rig)
    sandbox = daemon.ready_sandbox()
    rig.signal(signal.SIGTERM)
    assert daemon.peer.expect(wire.Drain)[0].grace_seconds == 30.0
    daemon.child.end()
    assert rig.wait() == 0
    assert sandbox.init.is_closed()
    sandbox.close()


def test_second_term_does_not_wait(rig: Rig) -> None:
    daemon = _daemon(rig)
    rig.signal(signal.SIGTERM)
    daemon.peer.expect(wire.Drain)
    rig.signal(signal.SIGTERM)
    assert rig.wait() == 0


@pytest.fixture
def impatient(tmp_path: Path) -> Iterator[Rig]:
    need_root()
    with spawner_rig.start(tmp_path, "--drain-grace-seconds", "-5") as started:
        yield started


def test_daemon_that_does_not_drain_in_time_is_killed(impatient: Rig) -> None:
    daemon = _daemon(impatient)
    impatient.signal(signal.SIGTERM)
    assert impatient.wait() == 0
    assert "did not end in time" in impatient.log.read_text()
    daemon.close()


def test_spawner_holds_no_more_descriptors_after_many_lives(shared_rig: Rig, spawner: Daemon) -> None:
    def held() -> int:
        spawner.destroy(spawner.ready_sandbox())
        return len(os.listdir(f"/proc/{shared_rig.process.pid}/fd"))

    before = held()
    lives = 30
    for _ in range(lives):
        after = held()
    assert after < before + lives  # a blank more or less in stock is no leak
