"""The bytes of seccomp's user notification, on this kernel."""

import errno
import os
import select
import signal

import pytest

from sandboxd.profile import seccomp
from sandboxd.spawner import listener, sys, trial
from sandboxd.spawner.listener import Notification
from tests.unit.spawner.notified import NOTIFY, PTRACE, call, expect, notified, ptrace_me


def _run_true() -> None:
    os.execv("/bin/true", ["true"])


def _die_by_alarm() -> None:
    signal.signal(signal.SIGALRM, lambda number, frame: None)
    expect(errno.EDOM, ptrace_me)


def test_this_kernel_has_it_and_the_trial_says_so() -> None:
    assert trial.attempt(listener.attempt) == ""


def test_call_comes_with_its_number_and_arguments_and_its_callers_thread() -> None:
    with notified(lambda: call(PTRACE, 16, 7, -1, 1 << 40)) as child:
        seen = child.receive()
        assert (seen.number, seen.thread, seen.is_native) == (PTRACE, child.pid, True)
        assert seen.args[:4] == (16, 7, (1 << 64) - 1, 1 << 40)
        child.listener.refuse(seen.key, errno.EDOM)
        assert child.status() == errno.EDOM


def test_refused_call_fails_with_that_errno() -> None:
    with notified(ptrace_me) as child:
        child.listener.refuse(child.receive().key, errno.EXDEV)
        assert child.status() == errno.EXDEV


def test_call_that_is_let_is_made() -> None:
    with notified(_run_true) as child:
        child.listener.let(child.receive().key)
        assert child.status() == 0


def test_call_whose_listener_is_closed_fails() -> None:
    with notified(ptrace_me) as child:
        child.receive()
        child.listener.close()
        assert child.status() == errno.ENOSYS
        child.listener.fd = os.open("/dev/null", os.O_RDONLY)


def test_call_of_a_killed_process_is_no_longer_pending_and_takes_no_answer() -> None:
    with notified(ptrace_me) as child:
        seen = child.receive()
        assert child.listener.is_pending(seen.key)
        os.kill(child.pid, signal.SIGKILL)
        assert child.status() == -signal.SIGKILL
        assert not child.listener.is_pending(seen.key)
        child.listener.refuse(seen.key, errno.EDOM)
        child.listener.let(seen.key)


def test_call_that_went_between_the_look_and_the_reading_is_nothing() -> None:
    with notified(ptrace_me) as child:
        assert child.waits()
        os.kill(child.pid, signal.SIGKILL)
        child.status()
        assert child.listener.receive() is None


def test_listener_without_callers_hangs_up() -> None:
    with notified(lambda: None) as child:
        child.status()
        poll = select.poll()
        poll.register(child.listener.fd, 0)
        assert poll.poll(30_000) == [(child.listener.fd, select.POLLHUP)]


def test_signal_while_the_answer_is_awaited_makes_no_second_call() -> None:
    with notified(_die_by_alarm) as child:
        seen = child.receive()
        for _ in range(5):
            os.kill(child.pid, signal.SIGALRM)
        assert not child.waits(50)
        assert child.listener.is_pending(seen.key)
        child.listener.refuse(seen.key, errno.EDOM)
        assert child.status() == 0


def test_control_without_the_flag_a_signal_takes_the_call_back() -> None:
    def plainly(program: object) -> int:
        return sys._syscall("seccomp", sys.SECCOMP_SET_MODE_FILTER, sys.SECCOMP_FILTER_FLAG_NEW_LISTENER, program)

    with notified(_die_by_alarm, plainly) as child:
        seen = child.receive()
        os.kill(child.pid, signal.SIGALRM)
        child.waits(1000)  # the same call, made anew
        assert not child.listener.is_pending(seen.key)


@pytest.mark.parametrize("arch", [0x40000003, 0x40000028, 0])
def test_call_of_another_architecture_is_foreign(arch: int) -> None:
    assert not Notification(1, 1, sys.EXECVE, arch, (0,) * 6).is_native


def test_notification_is_what_the_filter_of_the_profile_answers() -> None:
    assert seccomp.NOTIFY == NOTIFY == listener._USER_NOTIF
