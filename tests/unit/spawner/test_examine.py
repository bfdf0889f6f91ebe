"""The parent's half; what the child finds in a real sandbox is in `test_sandboxes`."""

import os
import selectors

import pytest

from sandboxd.spawner import examine
from sandboxd.spawner.examine import MOST_AT_ONCE, Busy, Examiner


def test_child_that_cannot_enter_ends_and_leaves_nothing() -> None:
    before = len(os.listdir("/proc/self/fd"))
    selector = selectors.DefaultSelector()
    examiner = Examiner(selector)
    with open(os.devnull, "rb") as nothing:
        read = examiner.begin(1, nothing.fileno(), nothing.fileno(), 1)
        assert os.read(read, 1) == b"", "it ends without a word, since it is in no sandbox"
    ((key, _),) = selector.select(30)
    key.data()
    os.close(read)
    selector.close()
    assert len(os.listdir("/proc/self/fd")) == before


def test_those_under_way_end_with_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(examine, "_examine", lambda *_: os.read(os.pipe()[0], 1))
    selector = selectors.DefaultSelector()
    examiner = Examiner(selector)
    reads = [examiner.begin(1, 0, 0, 1) for _ in range(MOST_AT_ONCE)]
    with pytest.raises(Busy):
        examiner.begin(1, 0, 0, 1)
    examiner.close()
    assert [os.read(read, 1) for read in reads] == [b""] * MOST_AT_ONCE
    for read in reads:
        os.close(read)
    selector.close()
