"""A flood of one warning is a line a second, which says how long the flood is."""

import logging

import pytest

from sandboxd.rpc.seldom import Seldom
from tests.fakes.clock import FakeClock


def test_flood_is_one_line_a_second_and_none_is_lost_count_of(caplog: pytest.LogCaptureFixture) -> None:
    clock = FakeClock()
    seldom = Seldom(logging.getLogger("seldom"), clock.time)
    for _ in range(3):
        for number in range(100):
            seldom.warning("dropped", {"number": number})
        clock.advance(1.0)
    seldom.warning("dropped", {"number": 0})
    said = [(vars(record)["number"], vars(record)["suppressed"]) for record in caplog.records]
    assert said == [(0, 0), (0, 99), (0, 99), (0, 99)]


def test_another_warning_is_told_at_once(caplog: pytest.LogCaptureFixture) -> None:
    seldom = Seldom(logging.getLogger("seldom"), FakeClock().time)
    seldom.warning("dropped", {})
    seldom.warning("refused", {})
    assert [record.message for record in caplog.records] == ["dropped", "refused"]
