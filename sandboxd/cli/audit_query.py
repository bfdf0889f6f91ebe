"""`sandboxctl audit query` and `tail`: what is looked for, put to a node or to a directory."""

import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

from sandboxd.audit.line import timestamp
from sandboxd.audit.lookup import Lookup, Query
from sandboxd.audit.search import MAX_TEXT_CHARS, PRIORITIES, Search
from sandboxd.cli.audit_records import show_news, show_page
from sandboxd.cli.mistake import Mistake
from sandboxd.cli.moment import moment
from sandboxd.cli.run import say
from sandboxd.client.audit import AuditDamage, AuditFilter, AuditPage, AuditRecord
from sandboxd.client.errors import SandboxdError
from sandboxd.client.sync import Client

WHOLE, DAMAGED = 0, 1
_MICROSECOND_NS = 1000
_FOREVER_SECONDS = 1e9


def wanted(
    since: str, until: str, tenant: str, execution: str, sandbox: str, rule: str, verdict: str, priority: str, text: str
) -> AuditFilter:
    """Mistake for what cannot be meant."""
    now = datetime.now(UTC)
    if priority.capitalize() not in ("", *PRIORITIES):
        raise Mistake(f"--priority {priority!r} is none; one of {', '.join(PRIORITIES)}")
    if len(text) > MAX_TEXT_CHARS:
        raise Mistake(f"--text has {len(text)} characters; look for {MAX_TEXT_CHARS} at most")
    return AuditFilter(
        since=moment("--since", since, now) if since else None,
        until=moment("--until", until, now) if until else None,
        tenant=tenant,
        execution_id=execution,
        sandbox_id=sandbox,
        rule=rule,
        verdict=verdict,
        minimum_priority=priority.capitalize(),
        text=text,
    )


def query_node(client: Client, asked: AuditFilter, limit: int, page: str, *, oldest_first: bool, as_json: bool) -> int:
    found = client.query_audit(asked, limit=limit, oldest_first=oldest_first, page_token=page)
    show_page(found, as_json=as_json)
    return DAMAGED if found.damages else WHOLE


def query_directory(
    journal: Path, asked: AuditFilter, limit: int, page: str, *, oldest_first: bool, as_json: bool
) -> int:
    """Line by line, without an index; needs no node. Mistake if it cannot be read."""
    if page and not (page.isascii() and page.isdecimal()):
        raise Mistake(f"--page {page!r} is none; give the one that the page before named")
    damaged = False
    after = int(page) if page else None
    try:
        for part in _pages(Lookup(journal, None), _search(asked), limit, after, newest_first=not oldest_first):
            show_page(part, as_json=as_json)
            damaged = damaged or bool(part.damages)
    except OSError as error:
        raise Mistake(f"cannot read the journal in {str(journal)!r}: {error.strerror or error}") from error
    return DAMAGED if damaged else WHOLE


def tail_node(client: Client, asked: AuditFilter, from_seq: int | None, *, as_json: bool) -> None:
    """Until the node goes down, or the user has enough. Says where to go on from."""
    next_seq = from_seq
    try:
        for news in client.tail_audit(asked, from_seq):
            show_news(news, as_json=as_json)
            next_seq = news.next_seq
    except SandboxdError:
        if next_seq is not None:
            say(f"go on with --from {next_seq}")
        raise
    except BrokenPipeError:
        sys.stderr.close()  # whoever read it has gone, and nobody is to be told of that at exit


def _pages(lookup: Lookup, search: Search, limit: int, after: int | None, *, newest_first: bool) -> Iterator[AuditPage]:
    """The last one says whether there may be more."""
    left = limit
    while True:
        query = Query(search, newest_first=newest_first, size=left, after=after, seconds=_FOREVER_SECONDS)
        page = lookup.page(query)
        left -= len(page.found)
        after = page.next
        last = after is None or left <= 0
        yield AuditPage(
            records=tuple(
                AuditRecord(
                    seq=found.record.seq,
                    time=datetime.fromisoformat(found.record.time[:26]).replace(tzinfo=UTC),
                    rule=found.record.rule,
                    priority=found.record.priority,
                    sha256=found.record.digest,
                    line=found.line.decode(errors="backslashreplace"),
                )
                for found in page.found
            ),
            damages=tuple(AuditDamage(d.seq, d.segment, d.offset, d.reason) for d in page.damages),
            next_page_token=str(after) if last and after is not None else "",
        )
        if last:
            return


def _search(asked: AuditFilter) -> Search:
    return Search(
        since=_journal_time(asked.since),
        until=_journal_time(asked.until),
        tenant=asked.tenant,
        execution_id=asked.execution_id,
        sandbox_id=asked.sandbox_id,
        rule=asked.rule,
        verdict=asked.verdict,
        minimum_priority=asked.minimum_priority,
        text=asked.text,
    )


def _journal_time(time: datetime | None) -> str:
    if time is None:
        return ""
    since_epoch = time - datetime(1970, 1, 1, tzinfo=UTC)
    microseconds = (since_epoch.days * 86400 + since_epoch.seconds) * 1_000_000 + since_epoch.microseconds
    return timestamp(microseconds * _MICROSECOND_NS)
