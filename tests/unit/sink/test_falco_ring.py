import asyncio

from sandboxd.sink.falco_ring import Ring


def test_events_come_out_in_order_and_once() -> None:
    ring = Ring(10, 100)
    for event in (b"a", b"b"):
        ring.put(event)
    assert [ring.take(), ring.take(), ring.take()] == [b"a", b"b", None]
    assert (len(ring), ring.size, ring.dropped) == (0, 0, 0)


def test_the_oldest_are_dropped_and_counted_beyond_the_count() -> None:
    ring = Ring(3, 100)
    for number in range(10):
        ring.put(b"%d" % number)
    assert (ring.dropped, len(ring), ring.take()) == (7, 3, b"7")


def test_the_oldest_are_dropped_and_counted_beyond_the_size() -> None:
    ring = Ring(10, 10)
    for event in (b"aaaa", b"bbbb", b"cccccc"):
        ring.put(event)
    assert (ring.dropped, ring.size, ring.take()) == (1, 10, b"bbbb")


def test_an_event_larger_than_the_ring_leaves_it_empty() -> None:
    ring = Ring(10, 10)
    ring.put(b"x" * 11)
    assert (ring.take(), ring.size, ring.dropped) == (None, 0, 1)


def test_what_is_given_back_is_the_oldest_again_and_dropped_first() -> None:
    ring = Ring(2, 100)
    for event in (b"a", b"b"):
        ring.put(event)
    taken = ring.take()
    assert taken == b"a"
    ring.give_back(taken)
    assert ring.take() == b"a"
    ring.put(b"c")
    ring.give_back(b"a")
    assert (ring.dropped, ring.take()) == (1, b"b")


def test_whoever_watches_is_told_until_he_stops() -> None:
    ring, news = Ring(2, 100), asyncio.Event()
    ring.watch(news)
    ring.put(b"a")
    assert news.is_set()
    news.clear()
    ring.give_back(ring.take() or b"")
    assert news.is_set()
    news.clear()
    ring.unwatch(news)
    ring.put(b"b")
    assert not news.is_set()
