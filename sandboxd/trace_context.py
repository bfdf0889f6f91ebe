"""W3C Trace Context: what a caller's `traceparent` and `tracestate` say, and what is handed on of them.

Pure. A context is a caller's word: it names a trace, and nothing is decided by it. Source:
https://www.w3.org/TR/trace-context/. Used by `rpc`, which reads it, and by whoever hands it on.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass

Headers = tuple[tuple[str, str], ...]  # names and values
MAX_STATE_CHARS = 512
_TRACEPARENT = re.compile(
    r"(?!ff)[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}(?P<more>-.*)?", re.ASCII
)
_TRACE_ID = re.compile(r"(?!0{32})[0-9a-f]{32}", re.ASCII)
_STATE = re.compile(r"[\x20-\x7e\t]*", re.ASCII)


@dataclass(frozen=True, slots=True)
class TraceContext:
    """Where a caller stands. Without a trace of his own `parent_id` is empty, and `trace_id` is a fresh one."""

    trace_id: str
    parent_id: str = ""
    sampled: bool = False
    state: str = ""


def context_of(traceparent: str, tracestate: str, fresh: Callable[[], str]) -> TraceContext:
    """What the headers say; a fresh trace if there is none or it is invalid, as the standard demands."""
    if not is_traceparent(traceparent):
        return TraceContext(fresh())
    _, trace_id, parent_id, flags = traceparent.split("-")[:4]
    return TraceContext(trace_id, parent_id, bool(int(flags, 16) & 1), tracestate if is_tracestate(tracestate) else "")


def trace_id_of(traceparent: str, fresh: Callable[[], str]) -> str:
    """As `context_of`, of what needs no more."""
    return context_of(traceparent, "", fresh).trace_id


def is_traceparent(value: str) -> bool:
    """Version 00 has exactly four fields, later ones may have more (https://www.w3.org/TR/trace-context/#versioning)."""
    match = _TRACEPARENT.fullmatch(value)
    return match is not None and not (value.startswith("00") and match["more"])


def is_trace_id(value: str) -> bool:
    return _TRACE_ID.fullmatch(value) is not None


def is_tracestate(value: str) -> bool:
    """Whether it can be handed on: what is in it concerns nobody but the tracing systems that wrote it."""
    return len(value) <= MAX_STATE_CHARS and _STATE.fullmatch(value) is not None


def traceparent(trace_id: str, span_id: str, *, sampled: bool) -> str:
    """Of whatever has that span as its parent."""
    return f"00-{trace_id}-{span_id}-{'01' if sampled else '00'}"


def headers(context: TraceContext, span_id: str, *, sampled: bool) -> Headers:
    """For whoever is asked on behalf of that span."""
    parent = ("traceparent", traceparent(context.trace_id, span_id, sampled=sampled))
    return (parent, ("tracestate", context.state)) if context.state else (parent,)
