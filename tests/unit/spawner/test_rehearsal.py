"""A rehearsal is of what a request will send, leaves nothing open, and copies the pages that the request then finds."""

import os
import resource
import struct

from sandboxd.spawner import rehearsal, wire

OF_A_REQUEST = {
    wire.Launch,
    wire.Assign,
    wire.Launched,
    wire.Answer,
    wire.Execute,
    wire.Started,
    wire.Exited,
    wire.Kill,
    wire.SandboxEnded,
}


def test_every_message_of_a_request_is_rehearsed_and_is_one_that_can_be_sent() -> None:
    messages = (*rehearsal.OF_THE_SPAWNER, *rehearsal.OF_INIT)
    assert {type(message) for message in messages} == OF_A_REQUEST
    assert [wire.decode(wire.encode(message)) for message in messages] == list(messages)


def test_nothing_stays_open() -> None:
    before = os.listdir("/proc/self/fd")
    rehearsal.rehearse(rehearsal.OF_INIT)
    assert os.listdir("/proc/self/fd") == before


def test_pages_of_a_fork_are_copied_by_the_first_time() -> None:
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            faults = [_faults()]
            for _ in range(3):
                rehearsal.rehearse(rehearsal.OF_INIT)
                faults.append(_faults())
            os.write(write, struct.pack("4q", *faults))
        finally:
            os._exit(0)
    os.close(write)
    os.waitpid(pid, 0)
    start, first, _, third = struct.unpack("4q", os.read(read, 64))
    os.close(read)
    assert third - first < (first - start) / 2


def _faults() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
