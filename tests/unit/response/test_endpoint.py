"""The endpoint before a responder on fakes: who is heard, what an event can bring about, and what is said of it."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp
import pytest

from sandboxd.errors import AuditUnavailable, RuntimeFailed
from sandboxd.event import ResponseTaken
from sandboxd.response import endpoint as module
from sandboxd.response.demand import Demand, Taken
from sandboxd.response.endpoint import MAX_BODY_BYTES, Endpoint
from sandboxd.response.responder import Responder
from sandboxd.settings.response import ResponseSettings
from tests.fakes.clock import FakeClock
from tests.fakes.incidents import TRACE, Incidents
from tests.opa import free_port

TOKEN = "t" * 32
RULES = {"Terminal shell in container": "freeze", "Crypto miner": "kill", "syscall.denied": "quarantine"}


@dataclass
class Client:
    url: str
    session: aiohttp.ClientSession
    clock: FakeClock = field(default_factory=FakeClock)

    async def post(
        self, body: bytes, token: str | None = TOKEN, path: str = "/v1/response", **more: object
    ) -> tuple[int, dict[str, str]]:
        headers = {} if token is None else {"Authorization": f"Bearer {token}"}
        async with self.session.post(self.url + path, data=body, headers=headers, **more) as answer:  # type: ignore[arg-type]
            return answer.status, await answer.json()


@contextlib.asynccontextmanager
async def serving(
    node: Incidents, tmp_path: Path, per_minute: int = 6000, rules: Mapping[str, str] = RULES
) -> AsyncIterator[Client]:
    (tmp_path / "token").write_text(TOKEN + "\n")
    port = free_port()
    settings = ResponseSettings(
        listen=f"127.0.0.1:{port}",
        token_file=str(tmp_path / "token"),
        rules=dict(rules),  # type: ignore[arg-type]
        max_per_minute=per_minute,
    )
    clock = FakeClock()
    served = Endpoint(settings, node.responder, lambda: TRACE, clock.time)
    try:
        async with aiohttp.ClientSession() as session:
            yield Client(f"http://127.0.0.1:{port}", session, clock)
    finally:
        await served.close()


def event(rule: str, **fields: object) -> bytes:
    return json.dumps(
        {
            "time": "2026-01-01T00:00:00.000000000Z",
            "rule": rule,
            "priority": "Critical",
            "source": "syscall",
            "output": "00:00:00.000000000: Critical x",
            "tags": [],
            "output_fields": fields,
        }
    ).encode()


@pytest.mark.parametrize(
    ("rule", "effect"),
    [("Terminal shell in container", "frozen"), ("Crypto miner", "killed"), ("syscall.denied", "held")],
)
async def test_event_has_done_what_its_rule_is_mapped_to(
    node: Incidents, tmp_path: Path, rule: str, effect: str
) -> None:
    incident = await node.start()
    async with serving(node, tmp_path) as client:
        assert await client.post(event(rule, **{"container.id": incident.sandbox_id})) == (200, {"result": "taken"})
    told = node.record.events[-1]
    assert isinstance(told, ResponseTaken)
    assert (told.subject, told.mapped_rule, told.caller_method) == ("webhook", rule, "POST /v1/response")
    assert told.effects == ((incident.execution_id, effect),)


async def test_rule_that_is_not_mapped_brings_about_nothing(node: Incidents, tmp_path: Path) -> None:
    incident = await node.start()
    async with serving(node, tmp_path) as client:
        for rule in ("Other", "crypto miner", "Crypto miner ", "response.taken", "policy.decided"):
            body = event(rule, **{"container.id": incident.sandbox_id})
            assert await client.post(body) == (200, {"result": "ignored"})
    assert node.record.events == []


async def test_our_own_answers_come_back_without_having_us_answer_them(node: Incidents, tmp_path: Path) -> None:
    """A relay that sends us every event of ours, and a configuration that maps as many of them as it can."""
    incident = await node.start()
    rules = {"Terminal shell in container": "freeze", "policy.decided": "freeze", "execution.ended": "kill"}
    async with serving(node, tmp_path, rules=rules) as client:
        await client.post(event("Terminal shell in container", **{"container.id": incident.sandbox_id}))
        relayed = 0
        while relayed < len(node.record.events):
            told = node.record.events[relayed]
            relayed += 1
            await client.post(event(told.rule, **{"container.id": told.sandbox_id}))
            assert relayed < 10, "it does not end"
    assert node.record.rules == ["policy.decided", "response.taken", "response.taken"]


@pytest.mark.parametrize("token", [None, "", "x", TOKEN[:-1], TOKEN + "t", "T" * 32])
async def test_who_does_not_show_the_token_is_not_heard(node: Incidents, tmp_path: Path, token: str | None) -> None:
    incident = await node.start()
    async with serving(node, tmp_path) as client:
        body = event("Crypto miner", **{"container.id": incident.sandbox_id})
        assert (await client.post(body, token))[0] == 401
        async with client.session.post(
            client.url + "/v1/response", data=body, headers=[("Authorization", f"Bearer {TOKEN}")] * 2
        ) as twice:
            assert twice.status == 401
    assert node.record.events == []
    assert not incident.supervision.over


@pytest.mark.parametrize("content", [None, "", "short", "two words that are long", "x" * 15])
async def test_token_that_cannot_be_one_lets_nobody_in(node: Incidents, tmp_path: Path, content: str | None) -> None:
    async with serving(node, tmp_path) as client:
        (tmp_path / "token").unlink()
        if content is not None:
            (tmp_path / "token").write_text(content)
        for token in (content or "", "", None, TOKEN):
            assert (await client.post(event("Other"), token))[0] == 401


async def test_token_that_was_renewed_counts_at_once(node: Incidents, tmp_path: Path) -> None:
    async with serving(node, tmp_path) as client:
        assert (await client.post(event("Other")))[0] == 200
        (tmp_path / "token").write_text("another" * 8)
        assert (await client.post(event("Other")))[0] == 401
        assert (await client.post(event("Other"), "another" * 8))[0] == 200


async def test_answer_holds_nothing_of_what_was_sent(node: Incidents, tmp_path: Path) -> None:
    async with serving(node, tmp_path) as client:
        mark = "<script>zzz</script>"
        bodies = [
            event(mark),
            event("Crypto miner", **{"container.id": mark, "sandbox.tenant": mark}),
            event("Crypto miner", **{"sandbox.tenant": mark}),
            mark.encode(),
        ]
        for body in bodies:
            status, told = await client.post(body, path="/v1/response")
            assert "zzz" not in json.dumps(told) and status in (200, 400, 409)
        assert "zzz" not in json.dumps(await client.post(b"", path="/zzz"))


@pytest.mark.parametrize(
    ("fields", "reason"),
    [({}, "no_target"), ({"container.id": "host"}, "no_target"), ({"container.id": "f" * 32}, "not_found")],
)
async def test_event_about_nobody_of_ours_is_told_so(
    node: Incidents, tmp_path: Path, fields: dict[str, object], reason: str
) -> None:
    await node.start()
    async with serving(node, tmp_path) as client:
        assert await client.post(event("Crypto miner", **fields)) == (409, {"result": "refused", "reason": reason})
    assert node.runtime.paused == set()


async def test_body_that_is_too_large_or_no_event_is_refused(node: Incidents, tmp_path: Path) -> None:
    async def pieces() -> AsyncIterator[bytes]:
        for _ in range(MAX_BODY_BYTES // 4096 + 2):
            yield b"x" * 4096

    async with serving(node, tmp_path) as client:
        assert (await client.post(b"{}"))[0] == 400
        with contextlib.suppress(aiohttp.ClientError):  # it may close before all was sent
            assert (await client.post(b"x" * (MAX_BODY_BYTES + 1)))[0] == 413
        with contextlib.suppress(aiohttp.ClientError):
            assert (await client.post(pieces()))[0] == 413  # type: ignore[arg-type]
        assert (await client.post(event("Other")))[0] == 200


async def test_other_paths_and_methods_are_not_there(node: Incidents, tmp_path: Path) -> None:
    async with serving(node, tmp_path) as client:
        assert (await client.post(event("Other"), path="/"))[0] == 404
        async with client.session.get(client.url + "/v1/response") as answer:
            assert answer.status == 405


async def test_rate_is_bounded_and_fills_up_again(node: Incidents, tmp_path: Path) -> None:
    async with serving(node, tmp_path, per_minute=8) as client:
        seen = [(await client.post(event("Other")))[0] for _ in range(3)]
        assert seen == [200, 200, 429]
        assert (await client.post(event("Other"), "wrong"))[0] == 401, "who is not known takes nobody's share"
        client.clock.advance(60)
        assert (await client.post(event("Other")))[0] == 200


@pytest.mark.parametrize(
    ("error", "status", "reason"),
    [
        (AuditUnavailable("/secret/path"), 503, "audit_unavailable"),
        (RuntimeFailed("/secret/path", reason="freeze_failed"), 500, "freeze_failed"),
        (ValueError("/secret/path"), 500, "internal"),
    ],
)
async def test_what_fails_within_is_told_by_a_word(
    node: Incidents, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, status: int, reason: str
) -> None:
    async def broken(_self: Responder, _demand: Demand, *_: object) -> Taken:
        raise error

    monkeypatch.setattr(Responder, "respond", broken)
    async with serving(node, tmp_path) as client:
        body = event("Crypto miner", **{"container.id": "f" * 32})
        assert await client.post(body) == (status, {"result": "refused", "reason": reason})


async def test_token_is_compared_in_a_time_that_tells_nothing(
    node: Incidents, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    compared: list[tuple[bytes, bytes]] = []

    def compare(given: bytes, expected: bytes) -> bool:
        compared.append((given, expected))
        return given == expected

    monkeypatch.setattr(module.hmac, "compare_digest", compare)  # type: ignore[attr-defined]
    async with serving(node, tmp_path) as client:
        await client.post(event("Other"), "x")
        await asyncio.sleep(0)
    assert compared == [(b"Bearer x", f"Bearer {TOKEN}".encode())]
