"""Tells a webhook what is asked of people and what they decided: a small JSON POST, best effort, never in anyone's way.

Holds a bounded queue, tries a few times and gives up; what it tells is a hint, and ApprovalService has the truth. Never
follows a redirect, never sends what is asked for itself. Takes long to import (aiohttp): only where one is configured.
"""

import asyncio
import json
import logging
from collections import deque
from collections.abc import Awaitable, Callable

import aiohttp

from sandboxd.approval.case import State, Update, expires_at
from sandboxd.outbound.token import TokenFile, TokenUnreadable

MAX_UNSENT = 256
ATTEMPTS = 3
ATTEMPT_SECONDS = 5.0
_RETRY_SECONDS = 1.0
_EVENTS = {State.PENDING: "approval.requested", State.GRANTED: "approval.granted", State.DENIED: "approval.denied"}

log = logging.getLogger(__name__)


class Webhook:
    """`run` it as a task. `node` is told with each."""

    def __init__(
        self,
        url: str,
        token_file: str | None,
        node: str,
        *,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._url = url
        self._token = TokenFile(token_file) if token_file is not None else None
        self._node = node
        self._sleep = sleep
        self._unsent: deque[bytes] = deque(maxlen=MAX_UNSENT)  # of too many the oldest go
        self._there = asyncio.Event()

    def tell(self, update: Update) -> None:
        """Returns at once. What is of no interest to people is left out: a vote that decides nothing, a use, an end."""
        if update.state not in _EVENTS or (update.state is State.PENDING and update.case.votes):
            return
        self._unsent.append(_body(update, self._node))
        self._there.set()

    async def run(self) -> None:
        """Until cancelled."""
        timeout = aiohttp.ClientTimeout(total=ATTEMPT_SECONDS)
        jar = aiohttp.DummyCookieJar()
        async with aiohttp.ClientSession(cookie_jar=jar, timeout=timeout, trust_env=False) as session:
            while True:
                await self._there.wait()
                while self._unsent:
                    await self._deliver(session, self._unsent.popleft())
                self._there.clear()

    async def _deliver(self, session: aiohttp.ClientSession, body: bytes) -> None:
        problem = ""
        for attempt in range(ATTEMPTS):
            if attempt:
                await self._sleep(_RETRY_SECONDS * 4.0 ** (attempt - 1))
            try:
                problem = await self._post(session, body)
            except (aiohttp.ClientError, TimeoutError, OSError, UnicodeError, TokenUnreadable) as error:
                problem = f"{type(error).__name__}: {error}"  # UnicodeError: of a host's name that none can have
            if not problem:
                return
        log.warning("the approvals webhook was not told", extra={"error": problem[:200], "attempts": ATTEMPTS})

    async def _post(self, session: aiohttp.ClientSession, body: bytes) -> str:
        """What was wrong, empty if it was taken. The answer's body is not read."""
        headers = {"Content-Type": "application/json"}
        if self._token is not None:
            headers["Authorization"] = f"Bearer {self._token.token()}"
        async with session.post(self._url, data=body, headers=headers, allow_redirects=False) as answer:
            return "" if 200 <= answer.status < 300 else f"it answered {answer.status}"


def _body(update: Update, node: str) -> bytes:
    case, asked = update.case, update.case.asked
    told = {
        "event": _EVENTS[update.state],
        "node": node,
        "approval_id": case.approval_id,
        "action_type": asked.action_type,
        "requester": asked.requester,
        "profile": asked.profile.name,
        "policy_revision": asked.revision,
        "reasons": asked.reasons,
        "approvers": asked.rule.approvers,
        "quorum": asked.rule.quorum,
        "votes": [{"approver": vote.approver, "approve": vote.approve, "comment": vote.comment} for vote in case.votes],
        "requested_at": case.requested_at,
        "expires_at": expires_at(case),
    }
    return json.dumps(told).encode()
