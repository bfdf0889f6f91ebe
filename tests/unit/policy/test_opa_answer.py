"""The decoding table, row by row. That the real server answers so is in the contract tests."""

import json

import pytest

from sandboxd.model import Verdict
from sandboxd.policy.opa_answer import Heard, decode
from sandboxd.policy.opa_client import Reply

ALLOW = '{"verdict": "allow"}'


def decoded(
    body: str | bytes, status: int = 200, content: str = "application/json", encoding: str = "identity"
) -> Heard:
    raw = body if isinstance(body, bytes) else body.encode()
    return decode(Reply(status, content, encoding, raw), "configured-1", "known-1")


def code(heard: Heard) -> str:
    assert heard.decision.verdict is Verdict.DENY
    return heard.decision.reasons[0].code


@pytest.mark.parametrize(
    ("result", "verdict"),
    [
        (ALLOW, Verdict.ALLOW),
        ('{"verdict": "warn", "reasons": [{"code": "a", "message": "b"}]}', Verdict.WARN),
        ('{"verdict": "deny"}', Verdict.DENY),
        ("true", Verdict.ALLOW),
        ("false", Verdict.DENY),
    ],
)
def test_a_decision_is_that_decision(result: str, verdict: Verdict) -> None:
    heard = decoded(f'{{"result": {result}}}')
    assert (heard.decision.verdict, heard.by_server, heard.decision.revision) == (verdict, True, "configured-1")


@pytest.mark.parametrize("body", ["{}", '{"provenance": {"version": "1"}}', '{"decision_id": "x", "metrics": {}}'])
def test_no_result_is_undefined(body: str) -> None:
    heard = decoded(body)
    assert (code(heard), heard.by_server) == ("policy_undefined", True)


@pytest.mark.parametrize(
    "body",
    [
        '{"result": null}',
        '{"result": "allow"}',
        '{"result": 1}',
        '{"result": []}',
        '{"result": [{"verdict": "allow"}]}',
        '{"result": {}}',
        '{"result": {"verdict": "ALLOW"}}',
        '{"result": {"verdict": true}}',
        '{"result": {"verdict": ["allow"]}}',
        '{"result": {"verdict": "allow", "extra": 1}}',
        '{"result": {"verdict": "allow", "ttl_seconds": 1e308, "reasons": {}}}',
        '{"result": {"verdict": "allow", "obligations": {"limits": {"pids": 0}}}}',
        '{"result": {"verdict": "allow", "ttl_seconds": 1' + "0" * 400 + "}}",
        '{"result": {"result": {"verdict": "allow"}}}',
        '{"result": true, "results": true}',
        '{"resutl": true}',
        "[]",
        "true",
        '"allow"',
        '{"result": true, "warning": {"code": "api_usage_warning", "message": "no input"}}',
        '{"result": true, "warning": null}',
        '{"result": true, "provenance": 1}',
        '{"result": true, "provenance": {"version": 1}}',
        '{"result": true, "provenance": {"revision": 1}}',
        '{"result": true, "provenance": {"bundles": []}}',
        '{"result": true, "provenance": {"bundles": {"a": 1}}}',
        '{"result": true, "provenance": {"bundles": {"a": {"revision": null}}}}',
    ],
)
def test_json_of_another_shape_is_malformed(body: str) -> None:
    heard = decoded(body)
    assert (code(heard), heard.by_server) == ("policy_malformed", True)


@pytest.mark.parametrize(
    "body",
    [
        "",
        " ",
        "<html>allow</html>",
        '{"result": true',
        '{"result": true}}',
        '{"result": true} {"result": true}',
        '{"result": false, "result": true}',
        '{"result": {"verdict": "deny", "verdict": "allow"}}',
        '{"result": NaN}',
        '{"result": {"verdict": "allow", "ttl_seconds": Infinity}}',
        '{"result": {"verdict": "allow", "ttl_seconds": 1e999}}',
        '{"result": {"verdict": "allow", "ttl_seconds": 1' + "0" * 5000 + "}}",
        '{"result": {"verdict": "allow", "message_for_agent": "\\ud800"}}',
        "{'result': true}",
        '{"result": True}',
        "\ufeff" + '{"result": true}',
        b'{"result": {"verdict": "allow", "message_for_agent": "\xff"}}',
        '{"result": true}'.encode("utf-16"),
        "[" * 100_000 + "]" * 100_000,
    ],
    ids=lambda body: repr(body)[:60],
)
def test_what_is_not_the_json_of_one_value_is_no_answer(body: str | bytes) -> None:
    heard = decoded(body)
    assert (code(heard), heard.by_server) == ("policy_unavailable", False)


@pytest.mark.parametrize("status", [201, 204, 206, 301, 302, 307, 401, 403, 404, 418, 429, 502, 503, 504])
def test_another_status_is_no_answer_whatever_the_body_says(status: int) -> None:
    for body in (f'{{"result": {ALLOW}}}', '{"code": "unauthorized", "message": "x"}'):
        heard = decoded(body, status)
        assert (code(heard), heard.by_server) == ("policy_unavailable", False)
        assert str(status) in heard.decision.reasons[0].message


@pytest.mark.parametrize(("status", "said"), [(500, "internal_error"), (400, "invalid_parameter")])
def test_an_error_about_the_input_is_unavailable_and_yet_a_sign_of_life(status: int, said: str) -> None:
    heard = decoded(json.dumps({"code": said, "message": "secret"}), status)
    assert (code(heard), heard.by_server) == ("policy_unavailable", True)
    assert said in heard.decision.reasons[0].message
    assert "secret" not in heard.decision.reasons[0].message


@pytest.mark.parametrize("body", [f'{{"result": {ALLOW}}}', "[]", '{"code": 1}', "oops"])
def test_an_error_that_is_not_of_opa_is_no_sign_of_life(body: str) -> None:
    heard = decoded(body, 500)
    assert (code(heard), heard.by_server) == ("policy_unavailable", False)


@pytest.mark.parametrize("content", ["text/html", "text/plain", "application/octet-stream", "application/json-seq", ""])
def test_json_under_another_name_is_no_answer(content: str) -> None:
    heard = decoded('{"result": true}', content=content)
    assert (code(heard), heard.by_server) == ("policy_unavailable", False)


def test_an_encoding_that_was_not_asked_for_is_no_answer() -> None:
    assert code(decoded('{"result": true}', encoding="gzip")) == "policy_unavailable"


@pytest.mark.parametrize(
    ("provenance", "revision"),
    [
        ({"bundles": {"b": {"revision": "2"}, "a": {"revision": "1"}}, "version": "1.0"}, "a=1,b=2"),
        ({"bundles": {"a": {"revision": ""}, "b": {"revision": "2"}}}, "b=2"),
        ({"revision": "r"}, "r"),
        ({"version": "1.22.2", "bundles": {"a": {"revision": ""}}}, "configured-1"),
        ({}, "configured-1"),
    ],
)
def test_the_revision_is_that_of_the_bundles(provenance: object, revision: str) -> None:
    heard = decoded(json.dumps({"result": True, "provenance": provenance}))
    assert heard.decision.revision == revision


@pytest.mark.parametrize(("provenance", "revision"), [({"version": "1.22.2"}, "opa-1.22.2"), ({}, "opa-unknown")])
def test_without_a_bundle_or_configured_revision_it_is_opas_version(provenance: object, revision: str) -> None:
    body = json.dumps({"result": True, "provenance": provenance}).encode()
    heard = decode(Reply(200, "application/json", "identity", body), "", "known-1")
    assert heard.decision.revision == revision


def test_a_very_long_revision_is_its_digest() -> None:
    bundles = {f"bundle-{number}": {"revision": "x" * 64} for number in range(20)}
    revision = decoded(json.dumps({"result": True, "provenance": {"bundles": bundles}})).decision.revision
    assert revision.startswith("sha256:") and len(revision) == 71


def test_what_no_policy_answered_has_the_revision_known_so_far() -> None:
    assert decoded("", 503).decision.revision == "known-1"
