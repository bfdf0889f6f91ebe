import asyncio

import pytest

from sandboxd.sink.base import Record, SinkRefused, SinkUnavailable
from sandboxd.sink.by_execution import ByExecution


def record(seq: int, execution: str = "") -> Record:
    ids = (("tenant", "t"), ("execution_id", execution))
    return Record(seq, "b", "n", "2001-09-09T01:46:40.000000001Z", "a.b", "Notice", ids, ())


class Receiver:
    """Fails for the records in `failing`, each time."""

    def __init__(self, **failing: Exception) -> None:
        self.failing = {int(name[1:]): failure for name, failure in failing.items()}
        self.taken: list[int] = []
        self.under_way = self.most = 0

    async def take(self, record: Record) -> None:
        self.under_way += 1
        self.most = max(self.most, self.under_way)
        await asyncio.sleep(0)
        self.under_way -= 1
        if record.seq in self.failing:
            raise self.failing[record.seq]
        self.taken.append(record.seq)


async def test_executions_go_side_by_side_and_each_in_its_order() -> None:
    receiver = Receiver()
    records = [record(seq, f"{seq % 5}" if seq % 6 else "") for seq in range(1, 61)]
    await ByExecution(3, receiver.take).send(records)
    assert (receiver.most, sorted(receiver.taken)) == (3, list(range(1, 61)))
    for execution in ("", "0", "1", "2", "3", "4"):
        own = [each.seq for each in records if dict(each.ids)["execution_id"] == execution]
        assert [seq for seq in receiver.taken if seq in own] == own


async def test_nothing_of_an_execution_follows_what_was_not_taken() -> None:
    receiver = Receiver(_2=SinkUnavailable("no"))
    with pytest.raises(SinkUnavailable):
        await ByExecution(4, receiver.take).send([record(1, "a"), record(2, "a"), record(3, "a")])
    assert receiver.taken == [1]


async def test_what_was_taken_is_not_sent_again_with_what_was_not() -> None:
    receiver = Receiver(_2=SinkUnavailable("no"))
    sender = ByExecution(1, receiver.take)
    records = [record(1, "a"), record(2, "b"), record(3, "c")]
    with pytest.raises(SinkUnavailable):
        await sender.send(records)
    receiver.failing.clear()
    await sender.send(records)
    assert receiver.taken == [1, 2, 3]
    await sender.send(records)  # another boot could have the same numbers: nothing is remembered for good
    assert receiver.taken == [1, 2, 3, 1, 2, 3]


async def test_a_refusal_is_told_before_anything_else() -> None:
    receiver = Receiver(_1=SinkUnavailable("no"), _2=SinkRefused("never", 2))
    with pytest.raises(SinkRefused) as caught:
        await ByExecution(2, receiver.take).send([record(1, "a"), record(2, "b")])
    assert caught.value.seq == 2
