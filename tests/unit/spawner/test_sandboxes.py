"""Launches of a real spawner: of blanks on offer, and of those that are born for them."""

import io
import json
import os
import select
import signal
import tarfile
from dataclasses import replace

import pytest

from sandboxd.spawner import wire
from tests.unit.spawner.spawner_rig import EXECUTE, LAUNCH, TEMPLATE, Daemon, Sandbox, launch


def offered(daemon: Daemon) -> tuple[wire.Offered, list[int]]:
    """One that may be named; those that are not used stay on offer until the module's end."""
    return daemon.peer.expect(wire.Offered)


def test_program_that_is_sent_to_an_offered_blank_runs_once_it_is_launched_and_not_before(spawner: Daemon) -> None:
    def too_early(blank: Sandbox) -> None:
        blank.begin_echo("hello")
        other = spawner.launch(launch(2))
        assert other.run("/bin/true").status == 0
        spawner.destroy(other)
        assert not select.select([blank.init.sock], [], [], 0)[0], "its init has not said a word"

    sandbox = spawner.claim(*offered(spawner), before=too_early)
    assert sandbox.echoed() == "hello\n"
    ended = spawner.destroy(sandbox)
    assert ended.wait_status == -signal.SIGKILL


def test_offer_tells_whose_it_is_and_what_it_holds_already(spawner: Daemon) -> None:
    offer, fds = offered(spawner)
    ceilings = TEMPLATE.ceilings
    assert offer.templates == (TEMPLATE.digest,)
    assert (offer.memory_bytes, offer.pids, offer.cpus) == (ceilings.memory_bytes, ceilings.pids, ceilings.cpus)
    assert (offer.workspace_bytes, offer.tmp_inodes) == (ceilings.workspace_bytes, ceilings.tmp_inodes)
    sandbox = spawner.claim(offer, fds)
    assert sandbox.run("/usr/bin/id", "-u").output == "1000\n"
    spawner.destroy(sandbox)


def test_launch_of_an_offer_may_ask_for_less_and_is_answered_without_descriptors(spawner: Daemon) -> None:
    offer, fds = offered(spawner)
    sandbox = spawner.claim(offer, fds, replace(LAUNCH, request_id=7, workspace_bytes=1 << 20))
    launched, none = spawner.peer.expect(wire.Launched)
    assert (launched.request_id, launched.fd_names, none) == (7, (), [])
    written = sandbox.run("/bin/sh", "-c", "head -c 2000000 /dev/zero >/workspace/x; stat -c %s /workspace/x")
    assert int(written.output.split()[-1]) <= 1 << 20
    spawner.destroy(sandbox)


def test_offer_is_used_once(spawner: Daemon) -> None:
    offer, fds = offered(spawner)
    sandbox = spawner.claim(offer, fds)
    for request_id in (0, 5):
        spawner.peer.send(replace(launch(2), request_id=request_id, offer=offer.offer))
    ended, _ = spawner.peer.expect(wire.SandboxEnded)
    assert ended == wire.SandboxEnded(launch(2).sandbox_id, 0, ())
    assert spawner.peer.expect(wire.Refused)[0].request_id == 5
    spawner.destroy(sandbox)


def test_refused_launch_of_an_offer_ends_its_blank_only_if_it_was_fitted_out(spawner: Daemon) -> None:
    offer, fds = offered(spawner)
    spawner.peer.send(replace(LAUNCH, request_id=6, offer=offer.offer, memory_bytes=1 << 40))
    assert spawner.peer.expect(wire.Refused)[0].reason == "above_ceiling"
    spawner.destroy(spawner.claim(offer, fds))


def test_launched_sandbox_runs_a_program_and_its_end_is_told(spawner: Daemon) -> None:
    sandbox = spawner.ready_sandbox()
    assert sandbox.run("/bin/echo", "hello").output == "hello\n"
    ended = spawner.destroy(sandbox)
    assert ended.wait_status == -signal.SIGKILL


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"template": "f" * 64}, "template_unknown"),
        ({"memory_bytes": (256 << 20) + 1}, "above_ceiling"),
        ({"memory_bytes": 0}, "above_ceiling"),
        ({"memory_bytes": -1}, "above_ceiling"),
        ({"pids": 65}, "above_ceiling"),
        ({"cpus": 1.01}, "above_ceiling"),
        ({"workspace_bytes": 1 << 40}, "above_ceiling"),
        ({"tmp_inodes": 1001}, "above_ceiling"),
        ({"io_read_bytes_per_second": -1}, "above_ceiling"),
        ({"network": "host"}, "above_ceiling"),
        ({"sandbox_id": "../../etc"}, "launch_failed"),
        ({"sandbox_id": "A" * 32}, "launch_failed"),
        ({"sandbox_id": ""}, "launch_failed"),
    ],
)
def test_launch_outside_the_template_is_refused(change: dict[str, int], reason: str, spawner: Daemon) -> None:
    spawner.peer.send(replace(LAUNCH, request_id=77, **change))  # type: ignore[arg-type]
    refused, _ = spawner.peer.expect(wire.Refused)
    assert (refused.request_id, refused.reason) == (77, reason)


def test_id_of_a_living_or_coming_sandbox_is_refused(spawner: Daemon) -> None:
    """Asked for at once, so that the second comes while the first still waits for its blank."""
    for number in range(1, 7):
        spawner.peer.send(replace(LAUNCH, request_id=number))
    refused = [spawner.peer.expect(wire.Refused)[0].request_id for _ in range(5)]
    sandbox = spawner.launched()
    assert refused == [2, 3, 4, 5, 6]
    spawner.destroy(sandbox)
    spawner.destroy(spawner.ready_sandbox())  # and now it is free again


def test_kill_of_an_unknown_id_is_ignored(spawner: Daemon) -> None:
    spawner.peer.send(wire.Kill("f" * 32))
    spawner.peer.send(wire.Kill(""))
    spawner.destroy(spawner.ready_sandbox())


def test_many_launches_at_once_are_all_served_with_ids_of_their_own(spawner: Daemon) -> None:
    count = 40
    for number in range(1, count + 1):
        spawner.peer.send(launch(number))
    sandboxes = [spawner.launched() for _ in range(count)]
    assert len({sandbox.host_uid for sandbox in sandboxes}) == count
    assert len({sandbox.sandbox_id for sandbox in sandboxes}) == count
    for sandbox in sandboxes:
        spawner.destroy(sandbox)


def test_sandbox_that_ends_by_itself_is_told(spawner: Daemon) -> None:
    sandbox = spawner.ready_sandbox()
    signal.pidfd_send_signal(sandbox.pidfd, signal.SIGKILL)
    ended, _ = spawner.peer.expect(wire.SandboxEnded)
    assert (ended.sandbox_id, ended.wait_status) == (LAUNCH.sandbox_id, -signal.SIGKILL)
    sandbox.close()


def test_loopback_is_up_only_where_asked_for(spawner: Daemon) -> None:
    flags = {}
    for network in ("none", "loopback"):
        sandbox = spawner.ready_sandbox(replace(LAUNCH, network=network))
        script = (
            "import fcntl, socket, struct\n"
            "flags = fcntl.ioctl(socket.socket(), 0x8913, b'lo' + bytes(38))\n"
            "print(struct.unpack_from('H', flags, 16)[0] & 1)"
        )
        flags[network] = sandbox.run("python3", "-c", script).output
        spawner.destroy(sandbox)
    assert flags == {"none": "0\n", "loopback": "1\n"}


def _ask(spawner: Daemon, message: wire.Freeze | wire.Thaw) -> str:
    spawner.peer.send(message)
    return spawner.peer.expect(wire.Frozen)[0].state


def _freeze(spawner: Daemon, sandbox: Sandbox) -> None:
    while _ask(spawner, wire.Freeze(3, sandbox.sandbox_id)) == "freezing":
        pass


def test_frozen_sandbox_answers_once_it_is_thawed(spawner: Daemon) -> None:
    sandbox = spawner.ready_sandbox()
    _freeze(spawner, sandbox)
    sandbox.begin_echo("late")
    assert not select.select([sandbox.init.sock], [], [], 0.2)[0]
    assert _ask(spawner, wire.Thaw(4, sandbox.sandbox_id)) == "thawed"
    assert sandbox.echoed() == "late\n"
    spawner.destroy(sandbox)


def test_frozen_sandbox_can_be_killed(spawner: Daemon) -> None:
    sandbox = spawner.ready_sandbox()
    _freeze(spawner, sandbox)
    assert spawner.destroy(sandbox).wait_status == -signal.SIGKILL


@pytest.mark.parametrize("kind", [wire.Freeze, wire.Thaw])
def test_sandbox_that_is_not_there_cannot_be_frozen(spawner: Daemon, kind: type[wire.Freeze | wire.Thaw]) -> None:
    spawner.peer.send(kind(9, "f" * 32))
    refused, _ = spawner.peer.expect(wire.Refused)
    assert (refused.request_id, refused.reason) == (9, "sandbox_gone")


def _examined(spawner: Daemon, sandbox: Sandbox, workspace_bytes: int = 1 << 20) -> dict[str, bytes]:
    spawner.peer.send(wire.Examine(8, sandbox.sandbox_id, workspace_bytes))
    _, (pipe,) = spawner.peer.expect(wire.Examined)
    found: dict[str, bytes] = {}
    with open(pipe, "rb") as file:
        while line := file.readline():
            name, length = line.split()
            found[name.decode()] = found.get(name.decode(), b"") + file.read(int(length))
    return found


@pytest.mark.parametrize("frozen", [False, True])
def test_living_sandbox_can_be_looked_into_frozen_or_not(spawner: Daemon, frozen: bool) -> None:
    sandbox = spawner.ready_sandbox()
    sandbox.run("/bin/sh", "-c", "echo secret >/workspace/found")
    sandbox.begin(replace(EXECUTE, argv=("/bin/sleep", "1000")))
    for _ in range(2):
        sandbox.init.expect(wire.Started)
    if frozen:
        _freeze(spawner, sandbox)
    found = _examined(spawner, sandbox)
    processes = json.loads(found["processes.json"])
    assert processes[0]["nspid"].split()[-1] == "1", "init first"
    (program,) = (process for process in processes if process["argv"] == ["/bin/sleep", "1000"])
    assert program["exe"] == os.path.realpath("/bin/sleep")
    assert program["cwd"] == "/workspace"
    assert set(program["fds"]) == {"0", "1", "2"}
    assert b" /workspace " in found["mounts.txt"]
    assert json.loads(found["workspace.json"])["complete"]
    with tarfile.open(fileobj=io.BytesIO(found["workspace.tar"])) as archive:
        member = archive.extractfile("workspace/found")
        assert member is not None and member.read() == b"secret\n"
    spawner.destroy(sandbox)


def test_only_so_many_are_looked_into_at_a_time(spawner: Daemon) -> None:
    sandbox = spawner.ready_sandbox()
    sandbox.run("/bin/sh", "-c", "head -c 4000000 /dev/zero >/workspace/big")
    pipes = []
    for _ in range(2):
        spawner.peer.send(wire.Examine(8, sandbox.sandbox_id, 1 << 30))
        pipes += spawner.peer.expect(wire.Examined)[1]
    spawner.peer.send(wire.Examine(9, sandbox.sandbox_id, 1 << 30))
    assert spawner.peer.expect(wire.Refused)[0].reason == "examine_failed"
    for pipe in pipes:
        os.close(pipe)
    spawner.destroy(sandbox)


def test_sandbox_that_is_not_there_cannot_be_looked_into(spawner: Daemon) -> None:
    spawner.peer.send(wire.Examine(9, "f" * 32, 1))
    assert spawner.peer.expect(wire.Refused)[0].reason == "sandbox_gone"
