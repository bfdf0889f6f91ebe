"""The remote engine against servers that are wrong, late or hostile: whatever they do is a deny, each with its reason.

Control: the same server answers allow, and the engine does. What the real OPA answers is in the contract tests.
"""

import asyncio
import gzip
import json
import logging
from asyncio import StreamWriter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from sandboxd.errors import ConfigInvalid, PolicyInvalid, RuntimeFailed
from sandboxd.model import Decision, Verdict
from sandboxd.policy import opa
from sandboxd.policy.document import MAX_DOCUMENT_BYTES
from sandboxd.policy.opa import OpaEngine
from sandboxd.policy.opa_breaker import State
from sandboxd.settings.policy import Opa, Policy
from tests.fakes.http import Script, ScriptedServer, response, says, says_and_closes, scripted
from tests.fakes.policy import question, start
from tests.opa import free_port

AMPLE = 60.0  # seconds: what ends before is not ended by the deadline
SHORT = 0.3
ALLOW = response('{"result": {"verdict": "allow"}}')


async def decided(url: str, deadline_seconds: float = AMPLE) -> Decision:
    engine = OpaEngine(Opa(url=url, max_response_bytes=64 * 1024), deadline_seconds)
    try:
        return await engine.decide(question())
    finally:
        await engine.close()


def code(decision: Decision) -> str:
    assert decision.verdict is Verdict.DENY
    assert decision.revision
    return decision.reasons[0].code


async def test_control_the_server_says_allow() -> None:
    async with scripted(says(ALLOW)) as made:
        assert (await decided(made.url)).verdict is Verdict.ALLOW
    assert json.loads(made.asked[0].body) == {"input": json.loads(question().document)}


# Servers that answer something else.


async def test_a_redirect_is_not_followed_even_to_a_server_that_allows() -> None:
    async with scripted(says(ALLOW)) as other:
        assert (await decided(other.url)).verdict is Verdict.ALLOW
        for status in (
            "301 Moved Permanently",
            "302 Found",
            "303 See Other",
            "307 Temporary Redirect",
            "308 Permanent",
        ):
            away = response("{}", status, f"Location: {other.url}/v1/data/sandboxd/decision")
            async with scripted(says(away)) as made:
                decision = await decided(made.url)
            assert code(decision) == "policy_unavailable"
            assert status[:3] in decision.reasons[0].message
        assert len(other.asked) == 1


def lasting(seconds: str) -> bytes:
    return response(f'{{"result": {{"verdict": "allow", "ttl_seconds": {seconds}}}}}')


BOMB = gzip.compress(b'{"result": true, "x": "' + b"y" * (64 << 20) + b'"}')
CHUNKED = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
WRONG: dict[str, tuple[bytes, str]] = {
    "html": (response("<html>allow</html>", content="text/html"), "policy_unavailable"),
    "html that says it is json": (response("<html>allow</html>"), "policy_unavailable"),
    "json that says it is html": (response('{"result": true}', content="text/html"), "policy_unavailable"),
    "gzip": (response(gzip.compress(b'{"result": true}'), "200 OK", "Content-Encoding: gzip"), "policy_unavailable"),
    "a gzip bomb": (response(BOMB, "200 OK", "Content-Encoding: gzip"), "policy_unavailable"),
    "two keys": (response('{"result": false, "result": true}'), "policy_unavailable"),
    "two results": (response('{"result": {"verdict": "deny"}}{"result": {"verdict": "allow"}}'), "policy_unavailable"),
    "two verdicts": (response('{"result": {"verdict": "deny", "verdict": "allow"}}'), "policy_unavailable"),
    "NaN": (lasting("NaN"), "policy_unavailable"),
    "a huge integer": (lasting("9" * 9999), "policy_unavailable"),
    "a large integer": (lasting("9" * 999), "policy_malformed"),
    "a huge float": (lasting("1e9999"), "policy_unavailable"),
    "deep": (response('{"result": ' + "[" * 30000 + "]" * 30000 + "}"), "policy_unavailable"),
    "a list of verdicts": (response('{"result": {"verdict": ["allow"]}}'), "policy_malformed"),
    "a verdict in a list": (response('[{"result": {"verdict": "allow"}}]'), "policy_malformed"),
    "an unknown verdict": (response('{"result": {"verdict": "Allow"}}'), "policy_malformed"),
    "an unknown key": (response('{"result": {"verdict": "allow", "sudo": true}}'), "policy_malformed"),
    "nothing": (response("{}"), "policy_undefined"),
    "no bytes": (response(""), "policy_unavailable"),
    "no content": (b"HTTP/1.1 204 No Content\r\n\r\n", "policy_unavailable"),
    "another protocol": (b"SSH-2.0-OpenSSH_9.2\r\n\r\n", "policy_unavailable"),
    "a status that is none": (b"HTTP/1.1 2000 OK\r\n\r\n{}", "policy_unavailable"),
    "two lengths": (
        response('{"result": true}', "200 OK", "Content-Length: 16", "Content-Length: 4"),
        "policy_unavailable",
    ),
    "a length that is none": (response('{"result": true}', "200 OK", "Content-Length: -1"), "policy_unavailable"),
    "a switch of protocols": (
        response("", "101 Switching Protocols", "Connection: upgrade", "Upgrade: websocket"),
        "policy_unavailable",
    ),
    "unauthorized": (response('{"code": "unauthorized", "message": "no"}', "401 Unauthorized"), "policy_unavailable"),
    "an error and a result": (response('{"result": {"verdict": "allow"}}', "500 Oops"), "policy_unavailable"),
    "a result that breaks off": (
        response('{"result": {"verdict": "allow"}}', "200 OK", "Content-Length: 5000"),
        "policy_unavailable",
    ),
    "a chunk that breaks off": (CHUNKED + b'20\r\n{"result": {"verdict": "allow"}}\r\n', "policy_unavailable"),
    "a chunk of another size": (CHUNKED + b'5\r\n{"result": true}\r\n0\r\n\r\n', "policy_unavailable"),
    "a header without end": (
        b"HTTP/1.1 200 OK\r\nX: " + b"y" * 100_000 + b"\r\n\r\n", "policy_unavailable",
    ),
    "headers without number": (
        b"HTTP/1.1 200 OK\r\n" + b"".join(b"X%d: y\r\n" % number for number in range(10_000)) + b"\r\n",
        "policy_unavailable",
    ),
}  # fmt: skip


@pytest.mark.parametrize("what", WRONG)
async def test_denied_is_a_server_that_answers_with(what: str) -> None:
    answer, expected = WRONG[what]
    async with scripted(says_and_closes(answer)) as made:
        decision = await decided(made.url)
    assert code(decision) == expected
    assert made.asked


async def test_a_body_without_end_is_cut_at_its_allowed_size() -> None:
    async def script(writer: StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n")
        while not writer.is_closing():
            writer.write(b" " * 4096)
            await writer.drain()

    async with scripted(script) as made:
        decision = await decided(made.url)
    assert code(decision) == "policy_unavailable"
    assert "over 65536 bytes" in decision.reasons[0].message


# Servers that are late.


async def dripping(writer: StreamWriter) -> None:
    for byte in ALLOW + b" " * 10_000:
        writer.write(bytes([byte]))
        await writer.drain()
        await asyncio.sleep(0.01)


async def silent(_writer: StreamWriter) -> None:
    await asyncio.Event().wait()


@pytest.mark.parametrize("script", [dripping, silent])
async def test_the_deadline_is_for_all_of_the_answer(script: Script) -> None:
    async with scripted(script) as made:
        assert code(await decided(made.url, SHORT)) == "policy_unavailable"
    assert made.asked


async def test_a_server_that_accepts_and_never_reads_is_late() -> None:
    async def never(_reader: asyncio.StreamReader, _writer: StreamWriter) -> None:
        await asyncio.Event().wait()

    made = await asyncio.start_server(never, "127.0.0.1", 0)
    port = made.sockets[0].getsockname()[1]
    for scheme in ("http", "https"):
        assert code(await decided(f"{scheme}://127.0.0.1:{port}", SHORT)) == "policy_unavailable"
    made.close()


async def test_waiting_for_a_connection_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sandboxd.policy.opa_client.CONNECTIONS", 1)
    async with scripted(silent) as made:
        engine = OpaEngine(Opa(url=made.url), SHORT)
        decisions = await asyncio.gather(*(engine.decide(question()) for _ in range(3)))
        await engine.close()
    assert {code(decision) for decision in decisions} == {"policy_unavailable"}


# Servers that are not there.


async def test_a_server_that_is_not_there_denies(tmp_path: Path) -> None:
    for url, why in (
        (f"http://127.0.0.1:{free_port()}", "Connection refused"),
        (f"unix://{tmp_path}/no.sock", "No such file or directory"),
    ):
        decision = await decided(url)
        assert code(decision) == "policy_unavailable"
        # No address in it: it reaches the caller.
        assert decision.reasons[0].message == f"the OPA server does not answer: it cannot be reached: {why}"


async def test_an_input_that_is_too_large_is_denied_and_not_sent() -> None:
    async with scripted(says(ALLOW)) as made:
        engine = OpaEngine(Opa(url=made.url), AMPLE)
        assert code(await engine.decide(question(start(argv=("x" * MAX_DOCUMENT_BYTES,))))) == "policy_unavailable"
        await engine.close()
    assert made.asked == []


# The circuit breaker.


@asynccontextmanager
async def switched(**settings: object) -> AsyncIterator[tuple[OpaEngine, ScriptedServer, list[bytes]]]:
    """An engine, its server, and the answer that the server gives at the moment (in a list of one)."""
    answer = [ALLOW]

    async def script(writer: StreamWriter) -> None:
        writer.write(answer[0])

    async with scripted(script) as made:
        engine = OpaEngine(Opa.model_validate({"url": made.url, **settings}), AMPLE)
        yield engine, made, answer
        await engine.close()


BROKEN = response("{}", "503 Service Unavailable")


async def test_a_server_that_keeps_failing_is_left_alone_and_everything_is_denied() -> None:
    async with switched(breaker_failures=3, breaker_seconds=300.0) as (engine, made, answer):
        answer[0] = BROKEN
        for _ in range(3):
            assert engine.breaker is State.CLOSED
            assert code(await engine.decide(question())) == "policy_unavailable"
        assert engine.breaker is State.OPEN
        answer[0] = ALLOW
        decision = await engine.decide(question())
        assert (code(decision), decision.reasons[0].message) == (
            "policy_unavailable",
            "the OPA server kept failing, and is not asked for a while",
        )
        assert len(made.asked) == 3


async def test_after_the_pause_one_question_tries_and_opens_the_way_for_all(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    async with switched(breaker_failures=1, breaker_seconds=0.001) as (engine, made, answer):
        answer[0] = BROKEN
        await engine.decide(question())
        answer[0] = ALLOW
        async with asyncio.timeout(AMPLE):
            while (decision := await engine.decide(question())).verdict is not Verdict.ALLOW:
                await asyncio.sleep(0.001)
        assert (engine.breaker, decision.verdict) == (State.CLOSED, Verdict.ALLOW)
        assert len(made.asked) == 2
    told = [record.__dict__["breaker"] for record in caplog.records if hasattr(record, "breaker")]
    assert told == [State.OPEN, State.HALF_OPEN, State.CLOSED]


async def test_what_one_input_does_to_the_policy_closes_the_way_for_no_other() -> None:
    """Else a tenant could have everybody denied with an input on which a rule conflicts."""
    async with switched(breaker_failures=1, max_response_bytes=1024) as (engine, _, answer):
        conflict = response('{"code": "internal_error", "message": "x"}', "500 Internal Server Error")
        for failing in (conflict, response("{}"), response('{"result": 1}'), response(" " * 2000)):
            answer[0] = failing
            assert (await engine.decide(question())).verdict is Verdict.DENY
            assert engine.breaker is State.CLOSED


async def test_a_caller_who_goes_away_tells_nothing_about_the_server() -> None:
    async with scripted(silent) as made:
        engine = OpaEngine(Opa(url=made.url, breaker_failures=1), AMPLE)
        asking = asyncio.create_task(engine.decide(question()))
        while not made.asked:
            await asyncio.sleep(0.001)
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
        assert engine.breaker is State.CLOSED
        await engine.close()


# Taking an answer again, its revision, and the end.


async def test_answers_may_be_taken_again_only_if_the_operator_says_so_and_the_server_answers() -> None:
    async with switched() as (engine, _, _):
        assert not engine.repeatable
    async with switched(cacheable=True, breaker_failures=1) as (engine, _, answer):
        assert engine.repeatable
        answer[0] = BROKEN
        await engine.decide(question())
        assert not engine.repeatable


async def test_the_revision_is_that_of_the_latest_answer(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    async with switched() as (engine, _, answer):
        for revision in ("1", "2"):
            body = {"result": True, "provenance": {"bundles": {"a": {"revision": revision}}}}
            answer[0] = response(json.dumps(body))
            assert (await engine.decide(question())).revision == engine.revision == f"a={revision}"
        answer[0] = BROKEN
        assert (await engine.decide(question())).revision == engine.revision == "a=2"
    assert [record.__dict__.get("revision") for record in caplog.records] == ["a=1", "a=2"]


async def test_an_answer_that_was_overtaken_brings_no_earlier_revision_back() -> None:
    """Else what an earlier policy said would be taken again."""
    go_on = asyncio.Event()
    waiting = ["1", "2"]

    async def script(writer: StreamWriter) -> None:
        revision = waiting.pop(0)
        if revision == "1":
            await go_on.wait()
        writer.write(response(json.dumps({"result": True, "provenance": {"bundles": {"a": {"revision": revision}}}})))

    async with scripted(script) as made:
        engine = OpaEngine(Opa(url=made.url), AMPLE)
        late = asyncio.create_task(engine.decide(question()))
        while not made.asked:
            await asyncio.sleep(0.001)
        assert (await engine.decide(question())).revision == "a=2"
        go_on.set()
        assert (await late).revision == "a=1"
        assert engine.revision == "a=2"
        await engine.close()


async def test_closing_waits_for_what_is_under_way_and_denies_what_comes_after() -> None:
    go_on = asyncio.Event()

    async def script(writer: StreamWriter) -> None:
        await go_on.wait()
        writer.write(ALLOW)

    async with scripted(script) as made:
        engine = OpaEngine(Opa(url=made.url), AMPLE)
        asking = asyncio.create_task(engine.decide(question()))
        while not made.asked:
            await asyncio.sleep(0.001)
        closing = asyncio.create_task(engine.close())
        await asyncio.sleep(0)
        assert code(await engine.decide(question())) == "policy_unavailable"
        go_on.set()
        assert (await asking).verdict is Verdict.ALLOW
        await closing


# The start.


def settings(url: str, **more: object) -> Policy:
    return Policy(engine="opa", opa=Opa.model_validate({"url": url, **more}), deadline_seconds=AMPLE)


async def test_the_start_tries_every_sample() -> None:
    async with scripted(says(ALLOW)) as made:
        engine = await opa.create(settings(made.url))
        await engine.close()
    types = [json.loads(question.body)["input"]["action"]["type"] for question in made.asked]
    assert len(types) == len(set(types)) == 16


async def test_a_server_that_is_not_there_ends_the_start_and_may_be_tried_again() -> None:
    url = f"http://127.0.0.1:{free_port()}"
    with pytest.raises(RuntimeFailed, match=rf"{url}.*cannot be reached.*; start OPA there with `opa run --server`"):
        await opa.create(settings(url))


async def test_a_policy_that_gives_no_decision_ends_the_start() -> None:
    for answer, what in (("{}", "has no answer"), ('{"result": "allow"}', "is not a decision")):
        async with scripted(says(response(answer))) as made:
            with pytest.raises(PolicyInvalid, match=rf"'execution.start'.*{what}.*policy.opa.decision"):
                await opa.create(settings(made.url))


async def test_files_that_cannot_be_used_end_the_start(tmp_path: Path) -> None:
    with pytest.raises(ConfigInvalid, match=r"policy\.opa\.ca"):
        await opa.create(settings("https://127.0.0.1:1", ca=str(tmp_path / "no.pem")))
    with pytest.raises(RuntimeFailed, match="token file cannot be read"):
        await opa.create(settings("http://127.0.0.1:1", token_file=str(tmp_path / "no")))


async def test_the_engine_without_a_server_is_a_wrong_configuration() -> None:
    with pytest.raises(ConfigInvalid, match="engine 'opa' needs a server"):
        await opa.create(Policy())
