"""The sandboxes that live and those that are awaited, made out of the stock of blanks as the daemon asks.

A launch carries ids, a template's digest and numbers, and is held to the template. Called by `service`.
"""

import errno
import os
import re
import selectors
from collections.abc import Callable, Mapping

from sandboxd.spawner import plans, sys, wire
from sandboxd.spawner.blank import BirthFailed, Blank
from sandboxd.spawner.cgroup import CgroupLimits
from sandboxd.spawner.examine import Busy, Examiner
from sandboxd.spawner.guard import Guard
from sandboxd.spawner.living import Living, remove
from sandboxd.spawner.offers import Line, Send, new_line
from sandboxd.spawner.site import Site
from sandboxd.spawner.stock import Stock

_SANDBOX_ID = re.compile(r"[0-9a-f]{32}")


class Sandboxes:
    """`send` is to the daemon, if there is one, and keeps order; `log` is for people."""

    def __init__(
        self, site: Site, target: int, selector: selectors.BaseSelector, send: Send, log: Callable[[str], None]
    ) -> None:
        self._site = site
        self._selector = selector
        self._send = send
        self._log = log
        self.stock = Stock(site.ids, site.tree, target, selector, send)
        self.living: dict[str, Living] = {}
        self._expected: set[str] = set()  # ids of sandboxes that wait for a blank
        self._prepared: Mapping[str, plans.Prepared] = {}
        self._generation = 0  # of the daemon
        self._examiner = Examiner(selector)
        self._guard: Guard | None = None  # from the first freeze on, where one is needed

    def replace(self, prepared: Mapping[str, plans.Prepared]) -> None:
        """From now on these templates may be launched, and no others."""
        self._prepared = prepared
        self.stock.replace(prepared)

    def hand_over(self) -> None:
        """To a daemon that was just greeted: those that lived under an earlier one, then what is in stock."""
        for living in self.living.values():
            names, fds = living.descriptors()
            blank = living.blank
            self._send(wire.Adopt(living.sandbox_id, blank.ids.payload_uid, names, blank.at_birth), fds)
        self.stock.open()

    def abandon(self) -> None:
        """The daemon is gone: what it asked for and did not get yet, nobody wants."""
        self._generation += 1
        self.stock.shut()

    def launch(self, launch: wire.Launch) -> None:
        try:
            prepared = plans.check(launch, self._prepared)
            known = launch.sandbox_id in self.living or launch.sandbox_id in self._expected
            if known or not _SANDBOX_ID.fullmatch(launch.sandbox_id):
                raise plans.LaunchRefused("launch_failed", f"sandbox id {launch.sandbox_id!r} is taken or ill-formed")
        except plans.LaunchRefused as refusal:
            self._refuse(launch, refusal.reason, str(refusal))
            return
        if not launch.offer:
            self._expected.add(launch.sandbox_id)
            generation = self._generation
            self.stock.take(prepared, lambda blank: self._born(launch, generation, blank))
            return
        claimed = self.stock.claim(launch.offer, prepared)
        if claimed is None:
            self._refuse(launch, "launch_failed", f"there is no offer {launch.offer} for that template")
            return
        self._assign(launch, *claimed)

    def kill(self, sandbox_id: str) -> None:
        """One that is not there has ended already."""
        living = self.living.get(sandbox_id)
        if living is not None:
            living.kill()

    def freeze(self, message: wire.Freeze) -> None:
        """Answers at once: whoever asks waits, and asks again."""
        self._with(message, self._frozen)

    def thaw(self, message: wire.Thaw) -> None:
        self._with(message, _thawed)

    def examine(self, message: wire.Examine) -> None:
        living = self.living.get(message.sandbox_id)
        if living is None:
            self._send(wire.Refused(message.request_id, "sandbox_gone", "there is no such sandbox any more"), ())
            return
        blank = living.blank
        try:
            pipe = self._examiner.begin(blank.pid, blank.user, blank.mount, message.workspace_bytes)
        except Busy:
            self._send(wire.Refused(message.request_id, "examine_failed", "others are being looked into"), ())
        except OSError as error:
            self._send(wire.Refused(message.request_id, "examine_failed", str(error)), ())
        else:
            self._send(wire.Examined(message.request_id), (pipe,))
            os.close(pipe)

    def _with(self, message: wire.Freeze | wire.Thaw, act: Callable[[Living], str]) -> None:
        living = self.living.get(message.sandbox_id)
        if living is None:
            self._send(wire.Refused(message.request_id, "sandbox_gone", "there is no such sandbox any more"), ())
            return
        try:
            state = act(living)
        except OSError as error:
            self._send(wire.Refused(message.request_id, "freeze_failed", str(error)), ())
        else:
            self._send(wire.Frozen(message.request_id, state), ())

    def _frozen(self, living: Living) -> str:
        if self._guard is None and self._site.tree.outlived:
            self._guard = Guard(self._site.tree)
        return "frozen" if living.freeze() else "freezing"

    def kill_all(self) -> None:
        for living in self.living.values():
            living.kill()

    def close(self) -> None:
        """Nothing of any of them is left afterwards."""
        self.kill_all()
        for living in self.living.values():
            living.finish()
            remove(living.blank.cgroup)
        self.stock.close()
        self._examiner.close()
        if self._guard is not None:
            self._guard.dismiss()

    def _refuse(self, launch: wire.Launch, reason: str, message: str) -> None:
        if launch.request_id:
            self._send(wire.Refused(launch.request_id, reason, message), ())
        else:
            self._log(f"sandbox {launch.sandbox_id} cannot be launched: {message}")
            self._send(wire.SandboxEnded(launch.sandbox_id, 0, ()), ())

    def _born(self, launch: wire.Launch, generation: int, blank: Blank | BirthFailed) -> None:
        self._expected.discard(launch.sandbox_id)
        if isinstance(blank, BirthFailed):
            if generation == self._generation:
                self._refuse(launch, "launch_failed", str(blank))
            return
        if generation != self._generation:
            self.stock.discard(blank)
            return
        try:
            line = new_line()
        except OSError as error:
            self.stock.discard(blank)
            self._refuse(launch, "launch_failed", str(error))
            return
        self._assign(launch, blank, line)

    def _assign(self, launch: wire.Launch, blank: Blank, line: Line) -> None:
        try:
            prepared = plans.check(launch, self._prepared)
            held = self._fit_out(launch, blank)
        except plans.LaunchRefused as refusal:  # the profiles were changed while it waited
            self._cannot_be(launch, blank, line, refusal.reason, str(refusal))
            return
        except OSError as error:
            self._cannot_be(launch, blank, line, "launch_failed", str(error))
            return
        with line.theirs:
            living = self.living[launch.sandbox_id] = Living(launch.sandbox_id, blank, line.ours)
            self._selector.register(blank.pidfd, selectors.EVENT_READ, lambda: self._on_exit(living))
            if launch.request_id:
                names, fds = ((), ()) if launch.offer else living.descriptors()
                uid = blank.ids.payload_uid
                self._send(wire.Launched(launch.request_id, launch.sandbox_id, uid, names, blank.at_birth), fds)
            assign = wire.Assign(
                prepared.template.digest,
                0 if "memory" in held else launch.memory_bytes,
                0 if "pids" in held else launch.pids,
                launch.workspace_bytes,
                launch.workspace_inodes,
                launch.tmp_bytes,
                launch.tmp_inodes,
            )
            try:  # after the daemon was told, which takes longer: it finds init ready
                wire.send(blank.sock, assign, (line.theirs.fileno(),))
            except OSError as error:  # it died; its end is told as any other
                self._log(f"the init of sandbox {launch.sandbox_id} cannot be assigned: {error}")
                living.kill()

    def _cannot_be(self, launch: wire.Launch, blank: Blank, line: Line, reason: str, message: str) -> None:
        line.close()
        self.stock.discard(blank)
        self._refuse(launch, reason, message)

    def _fit_out(self, launch: wire.Launch, blank: Blank) -> tuple[str, ...]:
        """The limits that its cgroup now holds, by name."""
        held = blank.cgroup.limit(
            CgroupLimits(
                launch.memory_bytes,
                launch.pids,
                launch.cpus,
                launch.io_read_bytes_per_second,
                launch.io_write_bytes_per_second,
            )
        )
        if launch.network == "loopback":
            _loopback_up(blank.net)
        return held

    def _on_exit(self, living: Living) -> None:
        self._selector.unregister(living.blank.pidfd)
        del self.living[living.sandbox_id]
        status, usage = living.finish()
        if remove(living.blank.cgroup):
            self._site.ids.give_back(living.blank.ids)
        else:
            self._log(f"the cgroup of sandbox {living.sandbox_id} cannot be emptied; its ids stay taken")
        self._send(wire.SandboxEnded(living.sandbox_id, status, usage), ())


def _thawed(living: Living) -> str:
    living.thaw()
    return "thawed"


def _loopback_up(net: int) -> None:
    """In a child: an ordinary user may enter the namespaces that are his, and then never go back to the host's."""
    pid = os.fork()
    if pid == 0:
        try:
            sys.setns(net, sys.CLONE_NEWNET)
            sys.loopback_up()
            os._exit(0)
        finally:
            os._exit(1)
    _, status = os.waitpid(pid, 0)
    if status:
        raise OSError(errno.EPERM, "the sandbox's loopback interface cannot be brought up")
