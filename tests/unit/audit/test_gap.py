from dataclasses import fields

from sandboxd.audit.gap import MOST_KEPT, Gap
from sandboxd.event import DaemonStopped, Event, JournalGap
from tests.fakes.events import violated

STOPPED = DaemonStopped("", "", "", "", "", "", "drain")


def drained(gap: Gap, seq: int = 0) -> list[tuple[Event, int]]:
    found = []
    while (missed := gap.next(99)) is not None:
        seq += 1
        gap.written(seq)
        found.append((missed.event, missed.time_ns))
    return found


def told(event: Event) -> dict[str, object]:
    assert isinstance(event, JournalGap)
    return {field.name: getattr(event, field.name) for field in fields(event)[6:]}


def test_what_is_over_is_kept_with_its_time_and_the_rest_is_counted() -> None:
    gap = Gap()
    assert not gap.open
    gap.miss(STOPPED, 5)
    gap.miss(violated("a"), 6)
    gap.miss_document(7)
    gap.miss(violated("b"), 8)
    assert gap.open
    (first, time_ns), *kept = drained(gap)
    assert (told(first), time_ns) == (
        {
            "since": "1970-01-01T00:00:00.000000005Z",
            "records": 3,
            "documents": 1,
            "kept": 2,
            "rules": (("daemon.stopped", 1), ("sandbox.violated", 2)),
        },
        99,
    )
    assert kept == [(violated("a"), 6), (violated("b"), 8)]
    assert not gap.open


def test_what_is_kept_is_bounded_and_what_is_not_is_counted() -> None:
    gap = Gap()
    for number in range(MOST_KEPT + 3):
        gap.miss(violated(str(number)), number)
    (first, _), *kept = drained(gap)
    assert (told(first)["records"], told(first)["kept"], len(kept)) == (MOST_KEPT + 3, MOST_KEPT, MOST_KEPT)


def test_what_is_taken_back_is_open_again_and_adds_up() -> None:
    gap = Gap()
    gap.miss(violated("a"), 1)
    gap.miss_document(2)
    drained(gap, seq=10)
    gap.miss(violated("b"), 3)
    gap.taken_back()
    (first, _), *kept = drained(gap)
    assert [told(first)[name] for name in ("since", "records", "documents", "kept")] == [
        "1970-01-01T00:00:00.000000001Z",
        2,
        1,
        2,
    ]
    assert kept == [(violated("a"), 1), (violated("b"), 3)]


def test_what_is_durable_does_not_come_back() -> None:
    gap = Gap()
    gap.miss(violated("a"), 1)
    drained(gap, seq=10)  # the sum as record 11, the event as 12
    gap.durable(11)
    gap.taken_back()
    assert [event for event, _ in drained(gap)] == [violated("a")]
    gap.durable(99)
    gap.taken_back()
    assert not gap.open
