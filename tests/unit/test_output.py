import asyncio
import os

from sandboxd.model import Chunk, Stream
from sandboxd.output import PIPE_MAX_BYTES, QUEUE_BYTES, Feeder, Pump, Queue
from sandboxd.redaction.patterns import Catalogue, Source
from sandboxd.redaction.redaction import Redaction


def pipe() -> tuple[int, int]:
    read, write = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    return read, write


def pump(read: int, queue: Queue, cap: int = 1 << 20) -> Pump:
    return Pump(Stream.STDOUT, read, cap, queue, lambda _count: None)


async def test_chunk_offsets_count_what_came_before() -> None:
    read, write = pipe()
    queue = Queue()
    stream = pump(read, queue)
    for data in (b"abc", b"de"):
        os.write(write, data)
        stream._readable()
    assert await queue.get() == Chunk(Stream.STDOUT, 0, b"abc")
    assert await queue.get() == Chunk(Stream.STDOUT, 3, b"de")
    os.close(write)
    stream.drain()


async def test_chunk_across_the_cap_is_cut_there() -> None:
    read, write = pipe()
    queue = Queue()
    stream = pump(read, queue, cap=2)
    os.write(write, b"abc")
    os.close(write)
    stream.drain()
    queue.close()
    assert await queue.get() == Chunk(Stream.STDOUT, 0, b"ab")
    assert await queue.get() is None
    assert stream.produced == 3


async def test_full_queue_pauses_and_room_resumes() -> None:
    read, write = pipe()
    queue = Queue()
    stream = pump(read, queue)
    queue.on_room = stream.resume
    stream.resume()
    assert not stream.paused
    queue.put(Chunk(Stream.STDOUT, 0, b"x" * QUEUE_BYTES))
    os.write(write, b"y")
    stream._readable()
    assert stream.paused
    await queue.get()
    assert not stream.paused
    os.close(write)
    stream.close()


async def test_over_the_cap_reading_goes_on_though_the_queue_is_full() -> None:
    read, write = pipe()
    queue = Queue()
    stream = pump(read, queue, cap=0)
    stream.resume()
    queue.put(Chunk(Stream.STDERR, 0, b"x" * QUEUE_BYTES))
    os.write(write, b"y" * 100)
    stream._readable()
    assert (stream.produced, stream.paused) == (100, False)
    os.close(write)
    stream.close()


async def test_drain_ends_though_a_writer_lives_and_writes_on() -> None:
    read, write = pipe()
    stream = pump(read, Queue(), cap=0)

    def write_on(_count: int) -> None:
        os.write(write, b"x" * 4096)

    stream._on_bytes = write_on
    write_on(0)
    stream.drain()
    assert PIPE_MAX_BYTES <= stream.produced <= PIPE_MAX_BYTES + 65536
    os.close(write)


async def test_abandoned_queue_keeps_nothing_and_ends() -> None:
    queue = Queue()
    queue.put(Chunk(Stream.STDOUT, 0, b"x"))
    queue.abandon()
    queue.put(Chunk(Stream.STDOUT, 1, b"y"))
    assert await queue.get() is None
    assert not queue.full


async def test_watcher_sees_chunks_that_nobody_waits_for() -> None:
    seen: list[bytes] = []
    queue = Queue()
    queue.on_chunk = lambda chunk: seen.append(chunk.data)
    queue.abandon()
    queue.put(Chunk(Stream.STDOUT, 0, b"x"))
    assert seen == [b"x"]


async def test_waiting_consumer_is_woken_by_a_chunk_and_by_the_end() -> None:
    queue = Queue()
    waiting = asyncio.create_task(queue.get())
    await asyncio.sleep(0)
    queue.put(Chunk(Stream.STDOUT, 0, b"x"))
    assert await waiting is not None
    waiting = asyncio.create_task(queue.get())
    await asyncio.sleep(0)
    queue.close()
    assert await waiting is None


async def test_small_stdin_is_written_at_once_and_closed() -> None:
    read, write = pipe()
    Feeder(write, b"abc")
    assert os.read(read, 10) == b"abc"
    assert os.read(read, 10) == b""
    os.close(read)


async def test_large_stdin_follows_as_it_is_read() -> None:
    data = os.urandom(300_000)
    read, write = pipe()
    feeder = Feeder(write, data)
    got = b""
    while len(got) < len(data):
        await asyncio.sleep(0)
        try:
            got += os.read(read, 65536)
        except BlockingIOError:
            continue
    assert got == data
    feeder.close()
    os.close(read)


async def test_program_that_closes_stdin_early_is_no_error() -> None:
    read, write = pipe()
    os.close(read)
    feeder = Feeder(write, b"x" * 300_000)
    assert feeder._fd == -1


def redacting(read: int, queue: Queue, cap: int, redaction: Redaction) -> Pump:
    return Pump(Stream.STDOUT, read, cap, queue, lambda _count: None, redaction.stream())


def tiny() -> Redaction:
    return Redaction(Catalogue({"tiny": Source("ab{2}", 3)}).patterns(["tiny"]))


async def chunks(queue: Queue) -> list[Chunk]:
    queue.close()
    got = []
    while (chunk := await queue.get()) is not None:
        got.append(chunk)
    return got


async def test_redacted_stream_has_offsets_of_its_own_and_what_was_held_back_at_its_end() -> None:
    read, write = pipe()
    queue = Queue()
    stream = redacting(read, queue, 100, tiny())
    for data in (b"x", b"a", b"b", b"b", b"y", b"a"):
        os.write(write, data)
        stream._readable()
    os.close(write)
    stream.drain()
    assert await chunks(queue) == [
        Chunk(Stream.STDOUT, 0, b"x"),
        Chunk(Stream.STDOUT, 1, b"[redacted:tiny]"),
        Chunk(Stream.STDOUT, 16, b"y"),
        Chunk(Stream.STDOUT, 17, b"a"),
    ]
    assert stream.produced == 6
    assert not stream.grown


async def test_what_is_held_back_where_the_cap_cuts_is_dropped() -> None:
    read, write = pipe()
    queue = Queue()
    stream = redacting(read, queue, 4, tiny())
    os.write(write, b"xyabbz")
    os.close(write)
    stream.drain()
    assert await chunks(queue) == [Chunk(Stream.STDOUT, 0, b"xy")]
    assert stream.produced == 6


async def test_what_is_held_back_while_a_writer_lives_on_is_dropped() -> None:
    read, write = pipe()
    queue = Queue()
    stream = redacting(read, queue, 100, tiny())
    os.write(write, b"xab")
    stream.drain()
    assert await chunks(queue) == [Chunk(Stream.STDOUT, 0, b"x")]
    os.close(write)


async def test_cap_holds_for_what_markers_make_longer() -> None:
    read, write = pipe()
    queue = Queue()
    stream = redacting(read, queue, 20, tiny())
    os.write(write, b"abbabb")
    os.close(write)
    stream.drain()
    assert b"".join(chunk.data for chunk in await chunks(queue)) == b"[redacted:tiny][reda"
    assert stream.grown
