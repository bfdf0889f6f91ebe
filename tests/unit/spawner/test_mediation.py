"""Init's part in mediation, with real callers and a clock that the test moves; and a whole sandbox at the end."""

import contextlib
import errno
import os
import select
import signal
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from sandboxd.spawner import mediation, sys, wire
from sandboxd.spawner.caller import Caller, Process
from sandboxd.spawner.listener import Notification
from sandboxd.spawner.template import Mediation
from tests.skips import need_root
from tests.unit.spawner import spawner_rig
from tests.unit.spawner.notified import PTRACE, asking, expect, ptrace_me
from tests.unit.spawner.spawner_rig import EXECUTE, TEMPLATE, Daemon, Rig, Sandbox
from tests.unit.spawner.watched import BOTH, ID, run_true, stranger, watching


def test_question_says_what_would_run() -> None:
    with stranger(run_true) as init:
        init.serve()
        asked = init.asked()
        assert asked.image == os.path.realpath("/bin/true")
        assert (asked.execution_id, asked.argv, asked.cwd) == (ID, ("true", "word"), os.getcwd())
        assert (asked.pid, asked.parent_pid) == (init.child.pid, os.getpid())


@pytest.mark.parametrize(("number", "status"), [(0, 0), (errno.EACCES, errno.EACCES), (errno.EXDEV, errno.EXDEV)])
def test_answer_reaches_the_caller(number: int, status: int) -> None:
    with stranger(run_true) as init:
        init.serve()
        init.server.answered(wire.Answered(init.asked().request_id, number))
        assert init.child.status() == status


def test_second_answer_to_a_question_is_nothing() -> None:
    with stranger(run_true) as init:
        init.serve()
        request = init.asked().request_id
        init.server.answered(wire.Answered(request, errno.EACCES))
        init.server.answered(wire.Answered(request, 0))
        init.server.answered(wire.Answered(request + 1, 0))
        assert init.child.status() == errno.EACCES


@pytest.mark.parametrize("number", [-1, 4096, -errno.EACCES])
def test_answer_that_no_call_can_have_breaks_the_protocol(number: int) -> None:
    """An errno beyond the last would be a result, and a negative one a success."""
    with stranger(run_true) as init:
        init.serve()
        with pytest.raises(wire.ProtocolError):
            init.server.answered(wire.Answered(init.asked().request_id, number))
        assert init.child.listener.is_pending(next(iter(init.server._asked.values())).notification.key)


def test_first_program_of_an_execution_is_not_asked_about_and_the_second_is() -> None:
    """The first is the one that execution.start was about. Its socket is closed by that execve."""

    def first() -> None:
        os.execv("/bin/sh", ["sh", "-c", "exec /bin/true word"])

    with watching(first) as init:
        init.serve()
        assert init.sent == []
        init.serve()
        assert init.asked().argv == ("/bin/true", "word")


def test_other_process_is_asked_about_while_the_first_program_is_still_to_come() -> None:
    def fork_first() -> None:
        if os.fork() == 0:
            expect(errno.EACCES, run_true)
            os._exit(0)
        os._exit(os.waitstatus_to_exitcode(os.wait()[1]))

    with watching(fork_first) as init:
        init.serve()
        init.server.answered(wire.Answered(init.asked().request_id, errno.EACCES))
        assert init.child.status() == 0


def test_execveat_of_the_first_child_is_asked_about() -> None:
    """Init's own code never calls it."""

    def by_descriptor() -> None:
        os.execve(os.open("/bin/true", os.O_RDONLY), ["true"], {})

    with watching(by_descriptor) as init:
        init.serve()
        assert init.asked().image == os.path.realpath("/bin/true")


def test_reported_call_fails_as_the_profile_says_and_is_told_of() -> None:
    with stranger(ptrace_me) as init:
        init.serve()
        assert init.child.status() == errno.EXDEV
        assert init.told() == (PTRACE, "profile", errno.EXDEV, 1)


def test_reported_call_of_a_thread_is_told_of_with_its_process() -> None:
    """Also where it is one of those that are only counted at first."""

    def in_threads() -> None:
        for _ in range(2):
            thread = threading.Thread(target=lambda: expect(errno.EXDEV, ptrace_me))
            thread.start()
            thread.join()

    with stranger(in_threads) as init:
        init.serve(2)
        assert init.child.status() == 0
        init.later(2 * mediation.WINDOW_SECONDS)
        pids = [message.pid for message in init.sent if isinstance(message, wire.CallRefused)]
        assert pids == [init.child.pid] * 2


def test_many_equal_refusals_are_told_of_once_a_window() -> None:
    def many() -> None:
        for _ in range(100):
            expect(errno.EXDEV, ptrace_me)

    with stranger(many) as init:
        init.serve(100)
        assert init.child.status() == 0
        assert init.told()[3] == 1
        init.later(mediation.WINDOW_SECONDS - 0.1)
        assert init.sent == []
        init.later(0.2)
        assert init.told()[3] == 99
        init.later(2 * mediation.WINDOW_SECONDS)
        assert init.sent == []


def test_refusals_not_told_of_yet_are_told_at_the_end() -> None:
    def twice() -> None:
        expect(errno.EXDEV, ptrace_me)
        expect(errno.EXDEV, ptrace_me)

    with stranger(twice) as init:
        init.serve(2)
        init.sent.clear()
        init.server.finish("f" * 32)
        assert init.sent == []
        init.server.finish(ID)
        assert init.told()[3] == 1
        init.server.finish(ID)
        assert init.sent == []


def test_call_that_nothing_says_to_ask_about_is_refused() -> None:
    with stranger(run_true, Mediation(exec=False, reported=BOTH.reported)) as init:
        init.serve()
        assert init.child.status() == errno.EPERM
        assert init.told() == (sys.EXECVE, "profile", errno.EPERM, 1)


@pytest.mark.parametrize(
    ("body", "number", "reason"),
    [
        (lambda: os.execv("/bin/true", ["x" * 100_000] * 5), errno.E2BIG, "too_large"),
        (lambda: os.execv("/usr/bin/no such program", ["x"]), errno.ENOENT, ""),
    ],
    ids=["too large", "missing"],
)
def test_call_that_cannot_be_asked_about_is_refused(body: Callable[[], object], number: int, reason: str) -> None:
    with stranger(body) as init:
        init.serve()
        assert init.child.status() == number
        assert [message.reason for message in init.sent if isinstance(message, wire.CallRefused)] == [reason] * bool(
            reason
        )


def test_question_without_an_answer_is_refused_at_its_deadline() -> None:
    with stranger(run_true) as init:
        init.serve()
        request = init.asked().request_id
        init.later(mediation.DEADLINE_SECONDS - 0.1)
        assert init.sent == []
        init.later(0.2)
        assert init.told() == (sys.EXECVE, "late", errno.EACCES, 1)
        init.server.answered(wire.Answered(request, 0))
        assert init.child.status() == errno.EACCES


def test_process_that_is_killed_before_it_is_looked_at_is_neither_asked_nor_told_about() -> None:
    """Its number may be another's, so nothing that was read there counts."""
    with stranger(run_true) as init:
        seen = init.child.receive()
        os.kill(init.child.pid, signal.SIGKILL)
        os.waitid(os.P_PID, init.child.pid, os.WEXITED | os.WNOWAIT)
        init.server._ask(init.server._watched[init.child.listener.fd], seen)
        assert init.sent == []


def test_process_that_is_killed_while_it_is_looked_at_is_not_asked_about(monkeypatch: pytest.MonkeyPatch) -> None:
    read = Process.reads

    def read_and_kill(process: Process, seen: Notification) -> Caller:
        found = read(process, seen)
        os.kill(process.thread, signal.SIGKILL)
        os.waitid(os.P_PID, process.thread, os.WEXITED | os.WNOWAIT)
        return found

    monkeypatch.setattr(Process, "reads", read_and_kill)
    with stranger(run_true) as init:
        init.serve()
        assert init.sent == []
        assert not init.server._asked


def test_question_of_a_killed_process_takes_no_place() -> None:
    with stranger(run_true) as init:
        init.serve()
        os.kill(init.child.pid, signal.SIGKILL)
        init.child.status()
        init.later(0.05)
        assert not init.server._asked
        init.server.answered(wire.Answered(init.asked().request_id, 0))


def test_daemon_that_does_not_read_is_not_waited_for() -> None:
    with stranger(run_true) as init:
        init.server.control.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            while True:
                init.server.control.send(bytes(16384))
        init.serve()
        assert init.child.status() == errno.EACCES
        assert init.sent == []
        while select.select([init.daemon], [], [], 0)[0]:
            init.daemon.recv(16384)
        init.later(2 * mediation.WINDOW_SECONDS)
        assert init.told() == (sys.EXECVE, "daemon_busy", errno.EACCES, 1)


def test_no_more_questions_are_open_than_may_be() -> None:
    def crowd() -> None:
        for _ in range(mediation.MOST_ASKED + 5):
            if os.fork() == 0:
                expect(errno.EACCES, run_true)
                os._exit(0)
        for _ in range(mediation.MOST_ASKED + 5):
            os.wait()

    with stranger(crowd) as init:
        init.serve(mediation.MOST_ASKED + 1)
        assert init.is_quiet()
        assert len(init.sent) == mediation.MOST_ASKED
        answered = 0
        while answered < mediation.MOST_ASKED + 5:
            while init.sent:
                message = init.sent.pop(0)
                assert isinstance(message, wire.Asked)
                init.server.answered(wire.Answered(message.request_id, errno.EACCES))
                answered += 1
            if answered < mediation.MOST_ASKED + 5:
                init.serve()
        assert init.child.status() == 0


def test_execs_beyond_the_rate_wait_in_the_kernel() -> None:
    def many() -> None:
        while True:
            expect(errno.EACCES, run_true)

    with stranger(many) as init:
        answered = 0
        while not init.is_quiet():
            init.serve()
            while init.sent:
                init.server.answered(wire.Answered(init.asked().request_id, errno.EACCES))
                answered += 1
        assert answered == mediation.BURST
        init.later(10.5 / mediation.EXECS_PER_SECOND)
        more = 0
        while not init.is_quiet():
            init.serve()
            while init.sent:
                init.server.answered(wire.Answered(init.asked().request_id, errno.EACCES))
                more += 1
        assert more == 10


def test_listener_of_programs_that_are_gone_is_closed() -> None:
    with stranger(lambda: None) as init:
        init.child.status()
        init.serve()
        with pytest.raises(OSError, match="Bad file"):
            os.fstat(init.child.listener.fd)
        init.child.listener.fd = os.open("/dev/null", os.O_RDONLY)


# --- in a sandbox

ASKING = replace(
    TEMPLATE,
    seccomp=asking(sys.EXECVE, sys.EXECVEAT, PTRACE),
    seccomp_first=True,
    mediation=Mediation(exec=True, reported=((PTRACE, errno.EPERM),)),
)


@pytest.fixture
def asking_rig(tmp_path: Path) -> Iterator[Rig]:
    need_root()
    with spawner_rig.start(tmp_path) as rig:
        rig.compile(ASKING)
        yield rig


@pytest.fixture
def asking_daemon(asking_rig: Rig) -> Daemon:
    return asking_rig.daemon()


@pytest.fixture
def asking_sandbox(asking_daemon: Daemon) -> Iterator[Sandbox]:
    made = asking_daemon.ready_sandbox()
    yield made
    asking_daemon.destroy(made)


def _run(sandbox: Sandbox, script: str, allowed: Callable[[wire.Asked], bool]) -> tuple[str, list[wire.Asked]]:
    read, write = os.pipe()
    sandbox.init.send(replace(EXECUTE, argv=("/bin/sh", "-c", script)), *_no_input(), write, write)
    os.close(write)
    asked: list[wire.Asked] = []
    while True:
        received = wire.receive(sandbox.init.sock)
        assert received is not None
        match received[0]:
            case wire.Asked() as question:
                asked.append(question)
                sandbox.init.send(wire.Answered(question.request_id, 0 if allowed(question) else errno.EACCES))
            case wire.Exited():
                break
    with open(read, "rb") as file:
        return file.read().decode(), asked


def _no_input() -> tuple[int]:
    read, write = os.pipe()
    os.close(write)
    return (read,)


def test_every_program_but_the_first_is_asked_about_in_a_sandbox(asking_sandbox: Sandbox) -> None:
    said, asked = _run(asking_sandbox, "/bin/echo 1; /usr/bin/id; /bin/echo 2", lambda seen: "id" not in seen.image)
    assert said == "1\n/bin/sh: 1: /usr/bin/id: Permission denied\n2\n"
    assert [(seen.image, seen.argv) for seen in asked] == [
        ("/usr/bin/echo", ("/bin/echo", "1")),
        ("/usr/bin/id", ("/usr/bin/id",)),
        ("/usr/bin/echo", ("/bin/echo", "2")),
    ]
    assert {(seen.execution_id, seen.cwd) for seen in asked} == {(EXECUTE.execution_id, "/workspace")}


def test_second_execution_of_a_sandbox_is_asked_about_as_the_first(asking_sandbox: Sandbox) -> None:
    for _ in range(3):
        assert len(_run(asking_sandbox, "/bin/true; /bin/true", lambda seen: True)[1]) == 2


def test_program_has_neither_the_listener_nor_a_process_beside_it(asking_sandbox: Sandbox) -> None:
    said, _ = _run(asking_sandbox, "ls /proc/self/fd; ls -d /proc/[0-9]*; exec cat /proc/1/comm", lambda seen: True)
    lines = said.split()
    assert lines[:4] == ["0", "1", "2", "3"]  # the last is the listing's own
    assert len([line for line in lines if line.startswith("/proc/")]) <= 4  # init, a keeper, the shell, the listing


def test_missing_program_is_passed_over_along_the_path_without_a_question(asking_sandbox: Sandbox) -> None:
    sandbox = asking_sandbox
    plan = replace(EXECUTE, argv=("true",), env=(("PATH", "/nowhere:/etc/passwd:/usr/bin"),))
    assert sandbox.run("true", plan=plan).status == 0
    said, asked = _run(sandbox, "PATH=/nowhere:/usr/bin; env true; no-such-program", lambda seen: True)
    assert [seen.image for seen in asked] == ["/usr/bin/env", "/usr/bin/true"]
    assert said == "/bin/sh: 1: no-such-program: not found\n"


def test_daemon_that_dies_leaves_its_questions_to_be_refused(asking_rig: Rig) -> None:
    """Nobody ever says yes: init itself says no once it is late, and the next daemon hears of that."""
    daemon = asking_rig.daemon()
    daemon.peer.send(wire.Ready("serving"))
    sandbox = daemon.ready_sandbox()
    sandbox.begin(replace(EXECUTE, argv=("/bin/sh", "-c", "/bin/true; exit $?")))
    question, _ = sandbox.init.expect(wire.Asked)
    assert question.image == "/usr/bin/true"
    sandbox.close()
    daemon.close()
    following = asking_rig.daemon()
    adopted = following.sandbox(*following.peer.expect(wire.Adopt))
    refused, _ = adopted.init.expect(wire.CallRefused)
    assert (refused.reason, refused.errno) == ("late", errno.EACCES)
    exited, _ = adopted.init.expect(wire.Exited)
    assert os.waitstatus_to_exitcode(exited.wait_status) == 126
    following.destroy(adopted)


def test_answer_to_a_sandbox_that_asks_nothing_ends_it(rig: Rig) -> None:
    rig.compile(TEMPLATE)
    daemon = rig.daemon()
    sandbox = daemon.ready_sandbox()
    sandbox.init.send(wire.Answered(1, 0))
    ended, _ = daemon.peer.expect(wire.SandboxEnded)
    assert ended.wait_status == 1
    sandbox.close()


def test_question_may_wait_longer_by_as_long_as_nobody_could_answer() -> None:
    with stranger(run_true) as init:
        init.serve()
        request = init.asked().request_id
        init.server.postpone(60.0)
        init.later(mediation.DEADLINE_SECONDS + 59.0)
        init.server.answered(wire.Answered(request, 0))
        assert init.child.status() == 0
