"""Records as a sink is given them."""

from sandboxd.audit.line import Link, body, decode, encode
from sandboxd.event import Event
from sandboxd.sink.base import Record
from tests.fakes.events import violated


def recorded(event: Event, seq: int = 1, node: str = "node", boot: str = "b" * 32) -> Record:
    """Of a journal's line with that number."""
    line = encode(body(event), Link(seq - 1, "0" * 64), boot, node, 10**18 + seq)
    return decode(line[:-1])


def records(count: int, first: int = 1) -> list[Record]:
    return [recorded(violated(f"number {seq}"), seq) for seq in range(first, first + count)]
