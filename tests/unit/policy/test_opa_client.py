"""The way to the server: whom it trusts, what it sends, what it refuses to read. Every server is a real one."""

import asyncio
import gzip
import os
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import pytest
import trustme
from cryptography.hazmat.primitives import serialization

from sandboxd.errors import ConfigInvalid
from sandboxd.policy.opa_client import NoReply, OpaClient, Reply
from sandboxd.settings.policy import Opa
from tests.fakes.http import response, says, scripted

ALLOW = response('{"result": {"verdict": "allow"}}')
LAST_YEAR = datetime(2025, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Files:
    """An authority with a server and a client of its own, as files; and one that nobody here knows."""

    directory: Path
    ca: trustme.CA
    stranger: trustme.CA

    def client(self, of: trustme.CA) -> dict[str, str]:
        issued = of.issue_cert("sandboxd@client")
        issued.cert_chain_pems[0].write_to_path(self.directory / "client.pem")
        issued.private_key_pem.write_to_path(self.directory / "client.key")
        return {"certificate": str(self.directory / "client.pem"), "key": str(self.directory / "client.key")}

    @property
    def ca_file(self) -> str:
        return str(self.directory / "ca.pem")


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Files:
    made = Files(tmp_path_factory.mktemp("tls"), trustme.CA(), trustme.CA())
    made.ca.cert_pem.write_to_path(made.ca_file)
    return made


def server(certificate: trustme.LeafCert, clients: trustme.CA | None = None) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    certificate.configure_cert(context)
    if clients is not None:
        clients.configure_trust(context)
        context.verify_mode = ssl.CERT_REQUIRED
    return context


async def asked(settings: Opa) -> Reply:
    client = OpaClient(settings)
    try:
        async with asyncio.timeout(60):
            return await client.ask(b'{"a":1}')
    finally:
        await client.close()


async def refused(settings: Opa) -> str:
    with pytest.raises(NoReply) as caught:
        await asked(settings)
    return str(caught.value)


async def test_the_question_is_posted_to_the_decision_and_asks_for_provenance() -> None:
    async with scripted(says(ALLOW)) as made:
        reply = await asked(Opa(url=f"{made.url}/behind/", decision="a/b"))
    (question,) = made.asked
    assert question.line == "POST /behind/v1/data/a/b?strict-builtin-errors=true&provenance=true HTTP/1.1"
    assert question.body == b'{"input":{"a":1}}'
    assert question.headers["content-type"] == "application/json"
    assert question.headers["accept-encoding"] == "identity"
    assert "authorization" not in question.headers
    assert reply == Reply(200, "application/json", "identity", b'{"result": {"verdict": "allow"}}')


async def test_a_unix_socket_is_asked_by_its_path(tmp_path: Path) -> None:
    async with scripted(says(ALLOW), path=tmp_path / "a b.sock") as made:
        assert (await asked(Opa(url=f"unix://{tmp_path}/a%20b.sock"))).status == 200
    assert made.asked[0].line.startswith("POST /v1/data/sandboxd/decision?")


async def test_the_token_is_sent_as_it_is_in_the_file_now(tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("one\n")
    async with scripted(says(ALLOW)) as made:
        client = OpaClient(Opa(url=made.url, token_file=str(token)))
        await client.ask(b"{}")
        token.write_text("seven\n")
        await client.ask(b"{}")
        token.write_text("")
        with pytest.raises(NoReply, match="one word"):
            await client.ask(b"{}")
        await client.close()
    assert [question.headers["authorization"] for question in made.asked] == ["Bearer one", "Bearer seven"]


# Whom it trusts.


async def test_a_server_of_the_configured_authority_is_asked(files: Files) -> None:
    async with scripted(says(ALLOW), tls=server(files.ca.issue_cert("127.0.0.1"))) as made:
        assert (await asked(Opa(url=made.url, ca=files.ca_file))).status == 200


CERTIFICATES: dict[str, tuple[Callable[[Files], trustme.LeafCert], str]] = {
    "of another authority": (lambda files: files.stranger.issue_cert("127.0.0.1"), "unable to get local issuer"),
    "of another name": (lambda files: files.ca.issue_cert("opa.example.org"), "IP address mismatch"),
    "of a name instead of the address": (lambda files: files.ca.issue_cert("localhost"), "IP address mismatch"),
    "expired": (lambda files: files.ca.issue_cert("127.0.0.1", not_after=LAST_YEAR), "certificate has expired"),
}


@pytest.mark.parametrize("which", CERTIFICATES)
async def test_a_certificate_is_refused_if_it_is(files: Files, which: str) -> None:
    make, why = CERTIFICATES[which]
    async with scripted(says(ALLOW), tls=server(make(files))) as made:
        assert why in await refused(Opa(url=made.url, ca=files.ca_file))
    assert made.asked == []


async def test_without_a_configured_authority_the_systems_ones_decide(files: Files) -> None:
    async with scripted(says(ALLOW), tls=server(files.ca.issue_cert("127.0.0.1"))) as made:
        assert "unable to get local issuer" in await refused(Opa(url=made.url))


async def test_tls_below_1_2_is_refused(files: Files) -> None:
    old = server(files.ca.issue_cert("127.0.0.1"))
    with pytest.warns(DeprecationWarning):
        old.minimum_version, old.maximum_version = ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1
    old.set_ciphers("ALL:@SECLEVEL=0")
    async with scripted(says(ALLOW), tls=old) as made:
        assert "cannot be reached" in await refused(Opa(url=made.url, ca=files.ca_file))
    assert made.asked == []


async def test_a_server_that_wants_a_client_certificate_gets_ours(files: Files) -> None:
    async with scripted(says(ALLOW), tls=server(files.ca.issue_cert("127.0.0.1"), files.ca)) as made:
        settings = {"url": made.url, "ca": files.ca_file}
        assert (await asked(Opa.model_validate({**settings, **files.client(files.ca)}))).status == 200
        assert len(made.asked) == 1
        await refused(Opa.model_validate(settings))
        await refused(Opa.model_validate({**settings, **files.client(files.stranger)}))
        assert len(made.asked) == 1


async def test_a_plain_server_behind_https_is_refused(files: Files) -> None:
    async def plain(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(response("{}", "400 Bad Request"))

    made = await asyncio.start_server(plain, "127.0.0.1", 0)
    port = made.sockets[0].getsockname()[1]
    assert "cannot be reached" in await refused(Opa(url=f"https://127.0.0.1:{port}", ca=files.ca_file))
    made.close()


@pytest.mark.parametrize("wrong", ["missing", "empty", "pipe", "swapped", "foreign", "encrypted"])
def test_files_that_cannot_be_used_are_named(files: Files, tmp_path: Path, wrong: str) -> None:
    empty = tmp_path / "empty"
    empty.touch()
    own = files.client(files.ca)
    other = tmp_path / "other.key"
    files.ca.issue_cert("x").private_key_pem.write_to_path(other)
    encrypted = tmp_path / "encrypted.key"
    encrypted.write_bytes(_encrypted(Path(own["key"]).read_bytes()))
    os.mkfifo(tmp_path / "pipe")
    settings, named = {
        "missing": ({"ca": str(tmp_path / "nothing")}, "policy.opa.ca '"),
        "empty": ({"ca": str(empty)}, "policy.opa.ca '"),
        "pipe": ({"ca": str(tmp_path / "pipe")}, "policy.opa.ca '"),
        "swapped": ({"certificate": own["key"], "key": own["certificate"]}, "cannot be used together"),
        "foreign": ({**own, "key": str(other)}, "cannot be used together"),
        "encrypted": ({**own, "key": str(encrypted)}, "without a passphrase"),
    }[wrong]
    with pytest.raises(ConfigInvalid, match=named):
        OpaClient(Opa.model_validate({"url": "https://127.0.0.1:1", **settings}))


def _encrypted(key: bytes) -> bytes:
    loaded = serialization.load_pem_private_key(key, None)
    return loaded.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.BestAvailableEncryption(b"passphrase"),
    )


# What else could answer in its place.


@pytest.fixture
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    yield


async def test_a_proxy_of_the_environment_is_not_asked(monkeypatch: pytest.MonkeyPatch, no_proxy: None) -> None:
    async with scripted(says(ALLOW)) as proxy, scripted(says(response("{}"))) as made:
        for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
            monkeypatch.setenv(name, proxy.url)
        assert (await asked(Opa(url=made.url))).body == b"{}"
    assert (len(proxy.asked), len(made.asked)) == (0, 1)


async def test_credentials_of_the_environment_are_not_sent(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login me password secret\n")
    netrc.chmod(0o600)
    monkeypatch.setenv("NETRC", str(netrc))
    async with scripted(says(ALLOW)) as made:
        await asked(Opa(url=made.url))
    assert "authorization" not in made.asked[0].headers


async def test_a_cookie_is_not_kept() -> None:
    # By name: no client keeps a cookie of a bare address.
    async with scripted(says(response("{}", "200 OK", "Set-Cookie: a=b")), host="localhost") as made:
        client = OpaClient(Opa(url=made.url))
        await client.ask(b"{}")
        await client.ask(b"{}")
        await client.close()
    assert ["cookie" in question.headers for question in made.asked] == [False, False]


async def test_a_compressed_answer_is_not_unpacked() -> None:
    packed = gzip.compress(b"y" * 100_000)
    async with scripted(says(response(packed, "200 OK", "Content-Encoding: gzip"))) as made:
        assert (await asked(Opa(url=made.url))) == Reply(200, "application/json", "gzip", packed)


async def test_a_connection_is_kept_for_the_next_question() -> None:
    async with scripted(says(ALLOW)) as made:
        client = OpaClient(Opa(url=made.url))
        for _ in range(5):
            await client.ask(b"{}")
        await client.close()
    assert (made.connections, len(made.asked)) == (1, 5)


async def test_a_kept_connection_that_closes_as_it_is_taken_up_costs_no_decision() -> None:
    ended = False

    async def script(writer: asyncio.StreamWriter) -> None:
        nonlocal ended
        if len(made.asked) == 2:
            ended = True
            writer.close()
        else:
            writer.write(ALLOW)

    async with scripted(script) as made:
        client = OpaClient(Opa(url=made.url))
        assert [(await client.ask(b"{}")).status for _ in range(3)] == [200, 200, 200]
        await client.close()
    assert ended and made.connections == 2


async def test_what_comes_unasked_is_not_the_answer_to_the_next_question() -> None:
    late = asyncio.Event()

    async def script(writer: asyncio.StreamWriter) -> None:
        writer.write(response('{"result": false}'))
        if len(made.asked) == 1:
            await writer.drain()
            await late.wait()
            writer.write(response('{"result": true}'))

    async with scripted(script) as made:
        client = OpaClient(Opa(url=made.url))
        bodies = [(await client.ask(b"{}")).body]
        late.set()
        await asyncio.sleep(0.2)  # until it has arrived at the kept connection
        bodies += [(await client.ask(b"{}")).body, (await client.ask(b"{}")).body]
        await client.close()
    assert bodies == [b'{"result": false}'] * 3
    assert made.connections == 2


async def test_what_came_unasked_while_the_loop_was_busy_is_not_the_answer_to_the_next_question() -> None:
    busy, sent = threading.Event(), threading.Event()

    def serve(listener: socket.socket) -> None:
        with listener.accept()[0] as first:
            first.recv(65536)
            first.sendall(response('{"result": false}'))
            busy.wait()
            first.sendall(response('{"result": true}'))
            sent.set()
            with listener.accept()[0] as second:
                second.recv(65536)
                second.sendall(response('{"result": false}'))

    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = threading.Thread(target=serve, args=(listener,), daemon=True)
        server.start()
        client = OpaClient(Opa(url=f"http://127.0.0.1:{listener.getsockname()[1]}"))
        bodies = [(await client.ask(b"{}")).body]
        busy.set()
        sent.wait()  # the loop sees nothing of it
        bodies.append((await client.ask(b"{}")).body)
        await client.close()
        assert bodies == [b'{"result": false}'] * 2
        server.join()


async def test_an_answer_is_read_up_to_its_allowed_size() -> None:
    body = '{"result": true, "x": "' + "y" * 2000 + '"}'
    most = len(body)
    async with scripted(says(response(body))) as made:
        assert len((await asked(Opa(url=made.url, max_response_bytes=most))).body) == most
        refusal = await refused(Opa(url=made.url, max_response_bytes=most - 1))
    assert refusal == f"its answer is over {most - 1} bytes"


async def test_the_trace_goes_with_the_question_in_headers() -> None:
    trace = (("traceparent", f"00-{'a' * 32}-{'b' * 16}-01"), ("tracestate", "vendor=1"))
    async with scripted(says(ALLOW)) as made:
        client = OpaClient(Opa(url=made.url))
        await client.ask(b"{}", trace)
        await client.ask(b"{}")
        await client.close()
    with_trace, without = made.asked
    assert {name: with_trace.headers[name] for name, _ in trace} == dict(trace)
    assert "traceparent" not in without.headers
    assert with_trace.body == without.body == b'{"input":{}}'
