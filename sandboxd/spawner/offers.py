"""Blanks in stock that the daemon knows already: it holds the line to the init of each before there is a sandbox.

So it can send the program together with the launch, and need not wait for an answer in between. An offered blank is the
daemon's to name: nobody else gets it, and it is not ended before the daemon has let go of it. Called by `stock`.
"""

import selectors
import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from sandboxd.spawner.blank import Blank
from sandboxd.spawner.living import handed
from sandboxd.spawner.wire import Message, Offered, Withdrawn

Send = Callable[[Message, tuple[int, ...]], None]


@dataclass(frozen=True, slots=True)
class Line:
    """The connection between a daemon and an init, which gets its end with its assignment."""

    ours: socket.socket  # the daemon's; kept for the daemons to come
    theirs: socket.socket

    def close(self) -> None:
        self.ours.close()
        self.theirs.close()


@dataclass(frozen=True, slots=True)
class _Offer:
    blank: Blank
    line: Line


def new_line() -> Line:
    return Line(*socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET))


class Offers:
    """`on_death` is told of a blank that died while it stood on offer."""

    def __init__(self, send: Send, selector: selectors.BaseSelector, on_death: Callable[[Blank], None]) -> None:
        self._send = send
        self._selector = selector
        self._on_death = on_death
        self._standing: dict[int, _Offer] = {}
        self._leaving: dict[int, _Offer] = {}  # withdrawn, and not returned yet
        self._last = 0

    @property
    def leaving(self) -> int:
        return len(self._leaving)

    def make(self, blank: Blank, templates: Sequence[str]) -> None:
        """Tell the daemon of a blank that may become any of these. OSError for want of descriptors or of watches."""
        line = new_line()
        try:
            self._selector.register(blank.pidfd, selectors.EVENT_READ, lambda: self._on_death(blank))
        except OSError:
            line.close()
            raise
        self._last += 1
        self._standing[self._last] = _Offer(blank, line)
        names, fds = handed(blank, line.ours)
        ceilings = blank.likely.template.ceilings
        self._send(
            Offered(
                self._last,
                tuple(templates),
                blank.ids.payload_uid,
                names,
                blank.at_birth,
                ceilings.memory_bytes if blank.fitted else 0,
                ceilings.pids,
                ceilings.cpus,
                ceilings.workspace_bytes,
                ceilings.workspace_inodes,
                ceilings.tmp_bytes,
                ceilings.tmp_inodes,
            ),
            fds,
        )

    def withdraw(self, blank: Blank) -> bool:
        """Ask for it back; False if it is not on offer, and so can go at once."""
        for number, offer in self._standing.items():
            if offer.blank is blank:
                del self._standing[number]
                self._selector.unregister(blank.pidfd)
                self._leaving[number] = offer
                self._send(Withdrawn(number), ())
                return True
        return False

    def find(self, number: int) -> Blank | None:
        offer = self._standing.get(number) or self._leaving.get(number)
        return offer.blank if offer is not None else None

    def claim(self, number: int) -> Line:
        """The daemon names it: its line, now the caller's. KeyError if there is no such offer."""
        offer = self._standing.pop(number, None)
        if offer is None:
            return self._leaving.pop(number).line
        self._selector.unregister(offer.blank.pidfd)
        return offer.line

    def forget(self) -> tuple[Blank, ...]:
        """The daemon is gone, and with it all it was told. Those that were withdrawn from it, for the caller to end."""
        for offer in (*self._standing.values(), *self._leaving.values()):
            offer.line.close()
        for offer in self._standing.values():
            self._selector.unregister(offer.blank.pidfd)
        left = tuple(offer.blank for offer in self._leaving.values())
        self._standing.clear()
        self._leaving.clear()
        return left
