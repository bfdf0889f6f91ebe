"""What an approval is bound to: one digest over everything that makes a request the identical one.

Policy sees names, sizes and digests; what it does not see (values of the environment, contents, the working directory)
is bound too, so that nothing else can run on a grant than what was asked for. Never holds a value in the clear. Used by
`execution` for what it carries, and by `office`.
"""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, replace

from sandboxd.model import Approval, ExecuteRequest


@dataclass(frozen=True, slots=True)
class Content:
    """What an action carries: `digest` of what policy does not see, `shown` for a person to decide on, as JSON text."""

    digest: bytes = b""
    shown: bytes = b""


def nothing() -> Content:
    """Of an action that policy sees whole."""
    return Content()


def execution(request: ExecuteRequest, shown: Callable[[], bytes]) -> Content:
    """Everything of the request but what names the moment: the trace, the session and the one use of a tool."""
    same = replace(
        request,
        stdin=_digest(request.stdin),
        files=tuple(replace(file, content=_digest(file.content)) for file in request.files),
        agent=replace(request.agent, session_id="", tool_use_id=""),
        traceparent="",
        tracestate="",
    )
    # repr names every field, also those that a later version adds, and quotes what is in them.
    return Content(_digest(repr(same).encode()), shown())


def binding(key: bytes, content: Content, revision: str, rule: Approval) -> str:
    """Hex. `key` is `PolicyInput.key`: action, requester, profile, runtime. Who must approve is bound as well."""
    parts = (key, content.digest, revision.encode(), repr(sorted(rule.approvers)).encode(), b"%d" % rule.quorum)
    return _digest(b"".join(b"%d:%b" % (len(part), part) for part in parts)).hex()


def _digest(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()
