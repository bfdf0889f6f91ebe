"""Reads the journal for the daemon's operators: looks up, follows, verifies, away from the loop and from who writes.

Keeps the index up behind the recorder, as a feed follows it. Nothing that goes wrong here reaches the journal: it is
logged, or told to whoever asked. Made by `daemon`; called by `rpc.audit`.
"""

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Protocol, TypeVar

from sandboxd.audit.journal import Position
from sandboxd.audit.key import public_pem
from sandboxd.audit.lookup import Lookup, Page, Query
from sandboxd.audit.search import Search
from sandboxd.audit.segment import segments
from sandboxd.audit.shelf import Shelf
from sandboxd.audit.tail import Slice, Tail
from sandboxd.audit.verify import VerifyResult
from sandboxd.audit.verify_process import verify_apart
from sandboxd.errors import Draining, InvalidRequest, Overloaded

INDEX = "index"  # below the state directory
INDEX_SECONDS = 1.0  # records are indexed together, and not while an execution is at work, which takes less
TAIL_SECONDS = 0.1

_log = logging.getLogger(__name__)
T = TypeVar("T")


class Source(Protocol):
    """What is needed of `audit.recorder.Recorder`."""

    @property
    def directory(self) -> Path: ...

    @property
    def readable(self) -> Position: ...

    def subscribe(self, callback: Callable[[], None]) -> Callable[[], None]: ...


class AuditReader:
    """`run` it as a task. Methods belong to one event loop; `close` ends what is under way, `run`'s end the threads."""

    def __init__(self, source: Source, state: Path, *, indexed: bool = True) -> None:
        """Of that state directory, whose journal `source` has opened."""
        self._source = source
        self._public_pem = public_pem(state)
        self._lookup = Lookup(source.directory, Shelf(state / INDEX) if indexed else None)
        # One thread each: what is asked for waits for nobody but others who ask, and never for the recorder's own.
        self._looking = ThreadPoolExecutor(1, "audit-lookup")
        self._following = ThreadPoolExecutor(1, "audit-tail")
        self._verifying = asyncio.Lock()
        self._tails: set[asyncio.Event] = set()
        self._closed = False

    async def run(self) -> None:
        """Until cancelled: what is new is indexed."""
        news = asyncio.Event()
        news.set()
        unsubscribe = self._source.subscribe(news.set)
        try:
            while True:
                await news.wait()
                await asyncio.sleep(INDEX_SECONDS)
                news.clear()
                while await self._advance():
                    pass
        finally:
            unsubscribe()
            self.close()
            self._looking.submit(self._lookup.close)
            self._looking.shutdown(wait=False)
            self._following.shutdown(wait=False, cancel_futures=True)

    async def _advance(self) -> bool:
        """A slice of it, so that a query waits for no more."""
        try:
            return await self._look(lambda: self._lookup.advance(self._source.readable))
        except OSError as error:
            _log.warning("the journal cannot be indexed", extra={"error": str(error)})
            return False

    async def query(self, query: Query) -> Page:
        """OSError if the journal cannot be read."""
        self._refuse_when_closed()
        return await self._look(lambda: self._lookup.page(query, self._source.readable))

    async def tail(self, search: Search, from_seq: int | None) -> AsyncGenerator[Slice, None]:
        """From that record on, 0 for the oldest; from the next one if None. `Draining` when the node goes down."""
        readable = self._source.readable
        due = readable.link.seq + 1
        if from_seq is None:
            from_seq = due
        elif from_seq == 0:
            there = segments(self._source.directory)
            from_seq = there[0].first_seq if there else due
        elif from_seq > due:
            raise InvalidRequest(
                f"from_seq {from_seq} is ahead of the journal, whose next record is {due}: this is another journal, or "
                "it has lost its end",
                reason="ahead_of_journal",
            )
        tail = Tail(self._source.directory, search, from_seq)
        news = asyncio.Event()
        self._tails.add(news)
        unsubscribe = self._source.subscribe(news.set)
        told = False  # that what was there is over
        try:
            while True:
                self._refuse_when_closed()
                news.clear()
                piece = await self._follow(lambda: tail.read(self._source.readable))
                if piece.found or piece.damages or piece.missing or piece.caught_up > told:
                    told = told or piece.caught_up
                    yield piece
                if piece.caught_up and not self._closed:
                    await news.wait()
                    await asyncio.sleep(TAIL_SECONDS)
        finally:
            unsubscribe()
            self._tails.discard(news)

    @property
    def public_pem(self) -> bytes:
        """The key that checkpoints are signed with, as it was when the node started."""
        return self._public_pem

    async def verify(self) -> VerifyResult:
        """One at a time; whoever cancels it ends it. VerificationFailed if it cannot be told."""
        if self._verifying.locked():
            raise Overloaded("the journal is being verified already; wait for that", reason="verifying")
        async with self._verifying:
            return await verify_apart(self._source.directory, self._public_pem)

    def close(self) -> None:
        """Whoever follows is told that the node goes down. Idempotent."""
        self._closed = True
        for news in self._tails:
            news.set()

    def _refuse_when_closed(self) -> None:
        if self._closed:
            raise Draining("the node is draining; go on from the last next_seq once it is back")

    async def _look(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._looking, work)

    async def _follow(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._following, work)
