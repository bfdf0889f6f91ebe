"""Stands in as PID 1 where there is no init, as in a container: reaps orphans, passes signals on, ends as its child.

What becomes an orphan falls to PID 1, and the spawner waits for its own children only. Must hold no capability and do
nothing else. Called by `__main__` before anything is set up.
"""

import os
import signal
from typing import NoReturn

from sandboxd.spawner import sys

_PASSED_ON = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


def leave_pid_1() -> None:
    """Returns in a child if this is PID 1, and at once if it is not."""
    if os.getpid() != 1:
        return
    watched = {*_PASSED_ON, signal.SIGCHLD}
    before = signal.pthread_sigmask(signal.SIG_BLOCK, watched)  # a signal that comes too early waits
    child = os.fork()
    if child:
        _reap(child, watched)
    signal.pthread_sigmask(signal.SIG_SETMASK, before)
    sys.prctl(sys.PR_SET_PDEATHSIG, signal.SIGKILL)
    os.setsid()  # a terminal's Ctrl-C reaches PID 1, which passes it on; twice would mean: at once


def _reap(child: int, watched: set[signal.Signals]) -> NoReturn:
    sys.drop_capabilities()
    sys.prctl(sys.PR_SET_DUMPABLE, 0)
    while True:
        number = signal.sigwaitinfo(watched).si_signo
        if number in _PASSED_ON:
            os.kill(child, number)  # not yet reaped, so it is still ours
        while (ended := os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG)) is not None:
            if ended.si_pid == child:
                os._exit(ended.si_status if ended.si_code == os.CLD_EXITED else 128 + ended.si_status)
