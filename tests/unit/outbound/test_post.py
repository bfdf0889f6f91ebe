import asyncio
import gzip
from asyncio import StreamWriter
from pathlib import Path

import pytest

from sandboxd.outbound.post import Answer, NoAnswer, Poster
from sandboxd.settings.outbound import Outbound
from tests.fakes.http import response, says, says_and_closes, scripted


async def posted(settings: Outbound, body: bytes = b"{}", path: str = "") -> Answer:
    async with Poster("sinks.x", settings, 2) as poster:
        return await poster.post(body, "application/json", path)


async def refused(settings: Outbound) -> str:
    with pytest.raises(NoAnswer) as caught:
        await posted(settings)
    return str(caught.value)


async def test_body_headers_and_token_arrive(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("secret\n")
    async with scripted(says(response("", "202 Accepted", "Retry-After: 7"))) as made:
        settings = Outbound(url=f"{made.url}/in?x=1", token_file=str(tmp_path / "token"), headers={"X-Key": "a b"})
        assert await posted(settings, b'{"a":1}') == Answer(202, b"", "7")
    (asked,) = made.asked
    assert asked.line == "POST /in?x=1 HTTP/1.1"
    assert asked.body == b'{"a":1}'
    wanted = {"content-type": "application/json", "x-key": "a b", "authorization": "Bearer secret"}
    assert {name: asked.headers[name] for name in wanted} == wanted


async def test_a_path_goes_behind_the_url() -> None:
    async with scripted(says(response(""))) as made:
        assert (await posted(Outbound(url=made.url), path="/v1/logs")).ok
    assert made.asked[0].line == "POST /v1/logs HTTP/1.1"


async def test_compressed_bodies_say_so() -> None:
    async with scripted(says(response(""))) as made:
        await posted(Outbound(url=made.url, compression=True), b"x" * 5000)
    assert made.asked[0].headers["content-encoding"] == "gzip"
    assert len(made.asked[0].body) < 200
    assert gzip.decompress(made.asked[0].body) == b"x" * 5000


async def test_a_body_is_plain_where_its_sender_says_so() -> None:
    async with scripted(says(response(""))) as made, Poster("x", Outbound(url=made.url, compression=True), 1) as poster:
        await poster.post(b"{}", "application/json", plain=True)
    assert (made.asked[0].headers.get("content-encoding"), made.asked[0].body) == (None, b"{}")


async def test_a_get_goes_out_with_the_token_and_without_a_body(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("secret")
    async with (
        scripted(says(response("pong"))) as made,
        Poster("x", Outbound(url=made.url, token_file=str(tmp_path / "token")), 1) as poster,
    ):
        assert await poster.get("/ping") == Answer(200, b"pong", "")
    (asked,) = made.asked
    assert (asked.line, asked.headers["authorization"], asked.body) == ("GET /ping HTTP/1.1", "Bearer secret", b"")


async def test_an_answer_is_wanted_as_it_is_whatever_is_configured() -> None:
    async with scripted(says(response(""))) as made:
        await posted(Outbound(url=made.url, headers={"accept-encoding": "gzip"}))
    assert made.asked[0].headers["accept-encoding"] == "identity"


async def test_a_redirect_is_an_answer_and_not_followed() -> None:
    async with scripted(says(response("", "307 Temporary Redirect", "Location: /elsewhere"))) as made:
        answer = await posted(Outbound(url=made.url))
    assert (answer.status, answer.ok, len(made.asked)) == (307, False, 1)


async def test_an_endless_answer_is_cut() -> None:
    async with scripted(says(response("y" * 500_000, "500 Internal Server Error"))) as made:
        assert len((await posted(Outbound(url=made.url))).body) <= 64 * 1024


async def test_an_answer_in_pieces_is_read_whole() -> None:
    async def in_pieces(writer: StreamWriter) -> None:
        answer = response(bytes(range(256)))
        for at in range(0, len(answer), 32):
            writer.write(answer[at : at + 32])
            await writer.drain()
            await asyncio.sleep(0.001)

    async with scripted(in_pieces) as made:
        assert (await posted(Outbound(url=made.url))).body == bytes(range(256))


async def test_what_goes_wrong_is_no_answer(tmp_path: Path) -> None:
    async def hangs(_: StreamWriter) -> None:
        await asyncio.Event().wait()

    async with scripted(hangs) as made:
        assert await refused(Outbound(url=made.url, timeout_seconds=0.05)) == "it did not answer within 0.05 s"
    async with scripted(says_and_closes(b"SSH-2.0\r\n\r\n")) as made:
        assert "Error" in await refused(Outbound(url=made.url))
        assert "token file" in await refused(Outbound(url=made.url, token_file=str(tmp_path / "none")))
    assert "Connect" in await refused(Outbound(url=made.url))
    assert "Error" in await refused(Outbound(url="http://a..b"))
