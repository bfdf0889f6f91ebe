"""The port against what falcosidekick's source says: what the sink is tried on must be no softer than the real one."""

import asyncio
import gzip
import json
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
import trustme

from sandboxd.settings.sinks.falcosidekick import FalcosidekickSettings
from sandboxd.sink.base import Record
from sandboxd.sink.falco_event import output_fields
from sandboxd.sink.falcosidekick import FalcosidekickSink
from tests.fakes.http import response, says, scripted
from tests.falcosidekick_port import Configuration, Panicked, Rejected, accept
from tests.falcosidekick_server import falcosidekick_port

EVENT: dict[str, object] = {
    "time": "2026-01-01T00:00:00.100000000Z",
    "rule": "a.b",
    "priority": "Notice",
    "source": "sandboxd",
    "hostname": "n",
    "output": "00:00:00.100000000: Notice a.b (x=1)",
    "tags": ["b", "a"],
    "output_fields": {"x": 1, "y": None},
}


def body(**changes: object) -> bytes:
    return json.dumps({name: value for name, value in {**EVENT, **changes}.items() if value != "leave out"}).encode()


def test_an_event_goes_on_with_a_uuid_sorted_tags_and_its_numbers_as_they_were() -> None:
    payload = accept(body(uuid="mine")[:-1] + b', "output_fields": {"big": 123456789012345678901234567890, "f": 1.50}}')
    assert payload.uuid != "mine"
    assert payload.tags == ("a", "b")
    marshalled = payload.marshalled()
    assert b'"output_fields":{"big":123456789012345678901234567890,"f":1.50}' in marshalled
    assert json.loads(marshalled)["time"] == "2026-01-01T00:00:00.1Z"


@pytest.mark.parametrize(
    "changes",
    [
        {"priority": "wARNING"},
        {"priority": "info"},
        {"output": "leave out"},
        {"source": None},
        {"tags": None},
        {"time": "2026-01-01T00:00:00+02:00"},
        {"output_fields": {"": []}},
        {"output_fields": {"k8s.ns.name": None, "k8s.pod.name": "p"}},
        {"more": {"than": "it knows"}},
    ],
)
def test_what_it_takes(changes: dict[str, object]) -> None:
    accept(body(**changes))


@pytest.mark.parametrize(
    "changes",
    [
        {"priority": "loud"},
        {"priority": None},
        {"priority": 3},
        {"rule": ""},
        {"rule": "leave out"},
        {"rule": 1},
        {"time": "leave out"},
        {"time": "0001-01-01T00:00:00Z"},
        {"time": "2026-01-01"},
        {"time": "2026-01-01 00:00:00Z"},
        {"time": "2026-13-01T00:00:00Z"},
        {"time": 1767225600},
        {"output_fields": {}},
        {"output_fields": None},
        {"output_fields": []},
        {"output_fields": "x"},
        {"output": 1},
        {"tags": ["a", 1]},
        {"hostname": ["n"]},
    ],
)
def test_what_it_rejects(changes: dict[str, object]) -> None:
    with pytest.raises(Rejected):
        accept(body(**changes))


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"[]",
        b"1",
        b"null",
        b"{",
        b"\xef\xbb\xbf" + body(),
        body()[:-1],
        body(x=float("nan")),
        body(x="\n").replace(b"\\n", b"\n"),
    ],
)
def test_what_is_no_json_is_rejected(raw: bytes) -> None:
    with pytest.raises(Rejected):
        accept(raw)


def test_bytes_behind_the_event_are_not_looked_at_and_names_match_in_any_case() -> None:
    accept(body() + b"garbage")
    assert accept(body(rule="leave out")[:-1] + b', "RULE": "c"}').rule == "c"


def test_half_a_surrogate_pair_becomes_a_replacement() -> None:
    fields = accept(body(output_fields={"x\ud800": "y\udfff"})).output_fields
    assert fields == {"x\ufffd": "y\ufffd"}


@pytest.mark.parametrize("value", [1, True, {}, []])
def test_a_namespace_that_is_no_string_kills_the_handler(value: object) -> None:
    with pytest.raises(Panicked):
        accept(body(output_fields={"k8s.ns.name": value}))


def test_of_a_long_event_only_strings_over_512_bytes_are_cut() -> None:
    long, fits = "é" * 300, "x" * 512
    kept = accept(body(output_fields={"a": long}))
    assert kept.output_fields["a"] == long
    cut = accept(body(output=f"o {long}", output_fields={"a": long, **{f"f{n}": fits for n in range(8)}}))
    shortened = str(cut.output_fields["a"])
    assert shortened.endswith("[...]") and shortened.startswith("é" * 253)
    assert cut.output == f"o {shortened}"
    assert cut.output_fields["f0"] == fits


def test_custom_and_templated_fields_tags_and_format_are_put_in() -> None:
    configuration = Configuration(
        {"cluster": "c"}, {"both": '{{ index . "cluster" }}/{{ index . "none" }}'}, ("z",), "<priority> <output> <tags>"
    )
    payload = accept(body(), configuration)
    assert payload.output_fields == {"x": "1", "y": None, "cluster": "c", "both": "c/<no value>"}
    assert (payload.tags, payload.output) == (("a", "b", "z"), "Notice a.b (x=1) a,b,z")
    assert accept(body(output_fields="leave out"), configuration).output_fields


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with falcosidekick_port() as running:
        yield running.url


def asked(url: str, data: bytes | None = None, **headers: str) -> tuple[int, bytes]:
    request = urllib.request.Request(url, data, headers)
    try:
        with urllib.request.urlopen(request, timeout=20) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()


def test_its_answers_are_those_of_falcosidekick(url: str) -> None:
    assert asked(f"{url}/ping") == (200, b"pong\n")
    assert asked(f"{url}/healthz") == (200, b'{"status": "ok"}')
    assert asked(f"{url}/test", b"") == (200, b"")
    assert asked(url) == (400, b"Please send with post http method\n")
    assert asked(url, body()) == (200, b"")
    assert asked(f"{url}/any/path", body()) == (200, b"")
    assert asked(url, body(rule="")) == (400, b"Please send a valid request body\n")


def test_a_compressed_event_is_none(url: str) -> None:
    packed = gzip.compress(body())
    assert asked(url, packed, **{"Content-Encoding": "gzip"}) == (400, b"Please send a valid request body\n")


def test_where_its_handler_dies_there_is_no_answer(url: str) -> None:
    with pytest.raises(OSError, match=r"[Rr]emote|reset"):
        asked(url, body(output_fields={"k8s.pod.name": 1}))


async def test_over_mutual_tls_its_webhook_gets_the_event_with_what_its_operator_adds(tmp_path: Path) -> None:
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    for name in ("127.0.0.1", "sandboxd"):
        issued = authority.issue_cert(name)
        issued.private_key_pem.write_to_path(str(tmp_path / f"{name}.key"))
        issued.cert_chain_pems[0].write_to_path(str(tmp_path / f"{name}.pem"))
    server = [
        *("--certificate", f"{tmp_path}/127.0.0.1.pem", "--key", f"{tmp_path}/127.0.0.1.key"),
        *("--client-ca", f"{tmp_path}/ca.pem", "--custom-field", "cluster=c", "--custom-tag", "x"),
        *("--templated-field", 'both={{ index . "cluster" }}/{{ index . "sandbox.tenant" }}'),
    ]
    record = Record(1, "b", "n", "2001-09-09T01:46:40.000000001Z", "a.b", "Notice", (("tenant", "t<1>"),), ())
    async with scripted(says(response(""))) as webhook:
        with falcosidekick_port(*server, "--webhook", webhook.url, scheme="https") as running:
            settings = FalcosidekickSettings(
                type="falcosidekick",
                url=running.url,
                ca=f"{tmp_path}/ca.pem",
                certificate=f"{tmp_path}/sandboxd.pem",
                key=f"{tmp_path}/sandboxd.key",
            )
            sink = FalcosidekickSink(settings)
            await sink.send(())
            await sink.send([record])
            async with asyncio.timeout(20):
                while not webhook.asked:
                    await asyncio.sleep(0.01)
            await sink.close()
    passed_on = json.loads(webhook.asked[0].body)
    added = {"cluster": "c", "both": "c/t<1>"}
    assert passed_on["output_fields"] == {**output_fields(record), **added}
    assert passed_on["tags"] == ["a", "sandboxd", "x"]
    assert webhook.asked[0].headers["user-agent"] == "Falcosidekick"
