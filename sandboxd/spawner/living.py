"""A sandbox that was assigned, as the spawner holds it: what must be handed to each daemon, and how it ends.

Called by `service`.
"""

import os
import signal
import socket

from sandboxd.spawner import counters
from sandboxd.spawner.blank import Blank
from sandboxd.spawner.cgroup import Cgroup


def remove(cgroup: Cgroup) -> bool:
    """With PID 1 all others died; should one be left in the cgroup all the same, it is killed there.

    False if even that did not empty it (a process in the kernel's hands): then its ids must not be given to another.
    """
    try:
        cgroup.remove()
    except OSError:
        try:
            cgroup.kill()
            cgroup.remove()
        except OSError:
            return False
    return True


def handed(blank: Blank, control: socket.socket) -> tuple[tuple[str, ...], tuple[int, ...]]:
    """Names and descriptors for Offered, Launched and Adopt; sending copies them. `control` is the daemon's end."""
    names = ("pidfd", "init", *(name for name, _ in blank.counters))
    return names, (blank.pidfd, control.fileno(), *(fd for _, fd in blank.counters))


class Living:
    """Keeps the daemon's descriptors too, so that a daemon which is started anew gets them again."""

    def __init__(self, sandbox_id: str, blank: Blank, control: socket.socket) -> None:
        self.sandbox_id = sandbox_id
        self.blank = blank
        self._control = control
        self._frozen = False

    def descriptors(self) -> tuple[tuple[str, ...], tuple[int, ...]]:
        return handed(self.blank, self._control)

    def freeze(self) -> bool:
        """Whether all of it stands still by now. OSError if it cannot be had to."""
        self._frozen = True  # before: whatever came of it, `kill` sees to it
        return self.blank.cgroup.freeze()

    def thaw(self) -> None:
        """OSError if it cannot be."""
        self.blank.cgroup.thaw()
        self._frozen = False

    def kill(self) -> None:
        """PID 1 of the pid namespace: the kernel takes all others with it."""
        signal.pidfd_send_signal(self.blank.pidfd, signal.SIGKILL)
        if self._frozen:
            self.blank.cgroup.let_die()

    def finish(self) -> tuple[int, tuple[tuple[str, float], ...]]:
        """Reap it and let go of it: its wait status (negative for a signal) and last counters since its birth.

        Its cgroup stays.
        """
        result = os.waitid(os.P_PIDFD, self.blank.pidfd, os.WEXITED)
        status = 0
        if result is not None:
            status = result.si_status if result.si_code == os.CLD_EXITED else -result.si_status
        usage = counters.since(self.blank.at_birth, self.blank.cgroup.usage())
        self._control.close()
        self.blank.close()
        return status, usage
