import asyncio

import pytest

from sandboxd.approval.case import State, Update
from sandboxd.approval.watching import MAX_UNREAD, Watchers
from sandboxd.errors import Draining, Overloaded
from tests.fakes.approvals import case

FIRST, SECOND = Update(case(), State.PENDING), Update(case(), State.EXPIRED)


async def test_news_come_in_order_to_all_who_want_them() -> None:
    watchers = Watchers()
    with watchers.watching(lambda _: True) as one, watchers.watching(lambda update: update is SECOND) as other:
        waiting = asyncio.create_task(one.get())
        await asyncio.sleep(0)
        for update in (FIRST, SECOND):
            watchers.tell(update)
        assert (await waiting, await one.get(), await other.get()) == (FIRST, SECOND, SECOND)


async def test_who_does_not_read_falls_out_and_keeps_nothing() -> None:
    watchers = Watchers()
    with watchers.watching(lambda _: True) as stuck:
        for _ in range(MAX_UNREAD):
            watchers.tell(FIRST)
        assert len(stuck._unread) == MAX_UNREAD
        watchers.tell(FIRST)
        watchers.tell(FIRST)
        assert len(stuck._unread) == 0
        with pytest.raises(Overloaded) as caught:
            await stuck.get()
    assert caught.value.reason == "watch_behind"


async def test_who_left_hears_nothing_and_is_forgotten() -> None:
    watchers = Watchers()
    with watchers.watching(lambda _: True) as gone:
        pass
    watchers.tell(FIRST)
    assert (len(gone._unread), len(watchers._all)) == (0, 0)


async def test_the_end_reaches_who_watches_and_who_comes_later() -> None:
    watchers = Watchers()
    with watchers.watching(lambda _: True) as news:
        waiting = asyncio.create_task(news.get())
        await asyncio.sleep(0)
        watchers.close()
        with pytest.raises(Draining):
            await waiting
    with watchers.watching(lambda _: True) as late, pytest.raises(Draining):
        await late.get()
