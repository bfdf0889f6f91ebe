"""A real HTTP server on loopback is told; whatever it does, nobody waits for it."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from sandboxd.approval.case import State, Update, state
from sandboxd.approval.webhook import ATTEMPTS, MAX_UNSENT, Webhook
from tests.fakes.approvals import asked, case, no, yes

PENDING = Update(case(), State.PENDING)


class Hook:
    """What the server was sent, and what it answers next."""

    def __init__(self) -> None:
        self.url = ""
        self.heard: list[dict[str, Any]] = []
        self.requests: list[web.Request] = []
        self.answers: list[Callable[[], web.StreamResponse]] = []
        self.slept: list[float] = []

    async def answer(self, request: web.Request) -> web.StreamResponse:
        self.requests.append(request)
        answer = self.answers.pop(0)() if self.answers else web.Response()
        self.heard.append(json.loads(await request.read()))
        return answer

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(60):
            while not condition():
                await asyncio.sleep(0.01)


@asynccontextmanager
async def telling(hook: Hook, token_file: Path | None = None) -> AsyncIterator[Webhook]:
    webhook = Webhook(hook.url, str(token_file) if token_file else None, "here", sleep=hook.sleep)
    running = asyncio.create_task(webhook.run())
    try:
        yield webhook
    finally:
        running.cancel()
        await asyncio.wait({running})


@pytest.fixture
async def hook() -> AsyncIterator[Hook]:
    hook = Hook()
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", hook.answer)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    hook.url = f"http://127.0.0.1:{runner.addresses[0][1]}/hook"
    yield hook
    await runner.cleanup()


async def test_it_is_told_what_is_asked_and_what_was_decided(hook: Hook) -> None:
    async with telling(hook) as webhook:
        for votes in ((), (yes(),), (no(comment="never"),)):
            found = case(*votes)
            webhook.tell(Update(found, state(found, 1002.0)))
        await hook.until(lambda: len(hook.heard) == 3)
    assert [told["event"] for told in hook.heard] == ["approval.requested", "approval.granted", "approval.denied"]
    assert hook.heard[2] == {
        "event": "approval.denied",
        "node": "here",
        "approval_id": f"{1:032x}",
        "action_type": "execution.start",
        "requester": "uid:1000",
        "profile": "default",
        "policy_revision": "r1",
        "reasons": ["c: m"],
        "approvers": [],
        "quorum": 1,
        "votes": [{"approver": "uid:0", "approve": False, "comment": "never"}],
        "requested_at": 1000.0,
        "expires_at": 1060.0,
    }
    assert {request.method for request in hook.requests} == {"POST"}
    assert "Authorization" not in hook.requests[0].headers


async def test_what_is_of_no_interest_is_not_told(hook: Hook) -> None:
    two = case(yes(), question=asked(quorum=2))
    async with telling(hook) as webhook:
        for update in (Update(two, State.PENDING), Update(case(), State.EXPIRED), Update(case(), State.CONSUMED)):
            webhook.tell(update)
        webhook.tell(PENDING)
        await hook.until(lambda: bool(hook.heard))
    assert [told["event"] for told in hook.heard] == ["approval.requested"]


async def test_the_token_is_read_anew_for_each(hook: Hook, tmp_path: Path) -> None:
    token = tmp_path / "token"
    async with telling(hook, token) as webhook:
        for word in ("first", "other"):
            token.write_text(f"{word}\n")
            before = len(hook.heard)
            webhook.tell(PENDING)
            await hook.until(lambda before=before: len(hook.heard) > before)  # type: ignore[misc]
    assert [request.headers["Authorization"] for request in hook.requests] == ["Bearer first", "Bearer other"]


async def test_without_its_token_nothing_is_sent(hook: Hook, tmp_path: Path) -> None:
    async with telling(hook, tmp_path / "none") as webhook:
        webhook.tell(PENDING)
        await hook.until(lambda: len(hook.slept) == ATTEMPTS - 1)
        (tmp_path / "none").write_text("word")
        webhook.tell(Update(case(no()), State.DENIED))
        await hook.until(lambda: bool(hook.heard))
    assert [told["event"] for told in hook.heard] == ["approval.denied"]


async def test_a_failure_is_tried_again_a_few_times_then_given_up(hook: Hook, caplog: pytest.LogCaptureFixture) -> None:
    hook.answers = [lambda: web.Response(status=503)] * (ATTEMPTS + 1)
    async with telling(hook) as webhook:
        webhook.tell(PENDING)
        webhook.tell(Update(case(no()), State.DENIED))
        await hook.until(lambda: len(hook.heard) == ATTEMPTS + 2)
    assert [told["event"] for told in hook.heard] == ["approval.requested"] * ATTEMPTS + ["approval.denied"] * 2
    assert hook.slept == [1.0, 4.0, 1.0]
    assert [record.message for record in caplog.records] == ["the approvals webhook was not told"]


async def test_a_host_that_cannot_be_looked_up_is_a_failure_like_others(
    hook: Hook, caplog: pytest.LogCaptureFixture
) -> None:
    hook.url = "https://a..b/hook"
    async with telling(hook) as webhook:
        webhook.tell(PENDING)
        webhook.tell(Update(case(no()), State.DENIED))
        await hook.until(lambda: len(caplog.records) == 2)


async def test_a_redirect_is_not_followed(hook: Hook) -> None:
    hook.answers = [lambda: web.Response(status=307, headers={"Location": "/elsewhere"})] * ATTEMPTS
    async with telling(hook) as webhook:
        webhook.tell(PENDING)
        webhook.tell(Update(case(no()), State.DENIED))
        await hook.until(lambda: len(hook.heard) == ATTEMPTS + 1)
    assert {request.path for request in hook.requests} == {"/hook"}


async def test_nobody_waits_for_it_and_it_holds_no_more_than_a_little() -> None:
    webhook = Webhook("http://127.0.0.1:9/", None, "here")  # nobody runs it
    for _ in range(MAX_UNSENT * 2):
        webhook.tell(PENDING)
    assert len(webhook._unsent) == MAX_UNSENT
