"""What an OPA server's answer means: the decoding table of its REST API, `POST /v1/data/<path>`.

Believes only HTTP 200 with exactly the documented JSON; nothing else can become anything but a deny. Pure. Used by
`policy.opa`.
"""

import hashlib
import json
import math
from dataclasses import dataclass

from sandboxd.model import Decision
from sandboxd.policy.base import UNDEFINED, decode_decision, refusal
from sandboxd.policy.opa_client import Reply

# https://www.openpolicyagent.org/docs/rest-api#get-a-document-with-input; all but `result` are about the answer.
_KNOWN = frozenset({"result", "decision_id", "provenance", "metrics", "explanation"})
_MAX_REVISION_CHARS = 256


@dataclass(frozen=True, slots=True)
class Heard:
    """`by_server`: OPA itself answered the question, if only to say that the policy fails on it."""

    decision: Decision
    by_server: bool


class _NoJsonError(Exception):
    pass


def decode(reply: Reply, configured_revision: str, known_revision: str) -> Heard:
    """The decision. Its revision is that of the bundles that gave it, else `configured_revision`, else OPA's version.

    `known_revision` is for what was not answered by a policy.
    """
    try:
        body = _json(reply)
    except _NoJsonError as error:
        return Heard(refusal("policy_unavailable", f"the OPA server does not answer: {error}", known_revision), False)
    if reply.status != 200:
        code = body.get("code") if isinstance(body, dict) else None
        # 400 and 500 with a code of OPA's are about this one input: a rule conflict, a built-in that fails on it.
        about_input = reply.status in (400, 500) and isinstance(code, str)
        said = f"{reply.status} {code[:64]!r}" if isinstance(code, str) else str(reply.status)
        return Heard(refusal("policy_unavailable", f"the OPA server answers {said}", known_revision), about_input)
    if isinstance(body, dict) and "warning" in body:
        # OPA has one: that the input did not arrive. What the policy said then is about no action.
        message = "the OPA server answers with a warning; see that what is between leaves the question as it is"
        return Heard(refusal("policy_malformed", message, known_revision), True)
    if not isinstance(body, dict) or (body.keys() - _KNOWN):
        return Heard(refusal("policy_malformed", "the OPA server's answer has another shape", known_revision), True)
    revision = _revision(body.get("provenance", {}), configured_revision)
    if revision is None:
        return Heard(refusal("policy_malformed", "the OPA server's provenance is ill-shaped", known_revision), True)
    return Heard(decode_decision(body.get("result", UNDEFINED), revision), True)


def _json(reply: Reply) -> object:
    if reply.encoding != "identity":
        raise _NoJsonError(f"its answer is encoded as {reply.encoding[:32]!r}, which was not asked for")
    if reply.content_type != "application/json":
        raise _NoJsonError(f"status {reply.status} with {reply.content_type[:64]!r} instead of JSON")
    try:
        text = reply.body.decode()
        value = json.loads(text, object_pairs_hook=_once, parse_constant=_no_constant, parse_float=_finite)
        if "\\u" in text:
            json.dumps(value, ensure_ascii=False).encode()  # half a surrogate pair is no character
    except (ValueError, RecursionError) as error:
        raise _NoJsonError("its answer is not the JSON of one value") from error
    return value


def _once(pairs: list[tuple[str, object]]) -> dict[str, object]:
    value = dict(pairs)
    if len(value) != len(pairs):
        raise ValueError("a key is there twice")
    return value


def _no_constant(text: str) -> object:
    raise ValueError(f"{text} is not JSON")


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError("a number is beyond a double")
    return value


def _revision(provenance: object, configured: str) -> str | None:
    """None if it is not what OPA documents."""
    if not isinstance(provenance, dict):
        return None
    bundles = provenance.get("bundles", {})
    single, version = provenance.get("revision", ""), provenance.get("version", "")
    if not isinstance(bundles, dict) or not isinstance(single, str) or not isinstance(version, str):
        return None
    named: list[str] = [single] if single else []
    for name, bundle in sorted(bundles.items()):
        revision = bundle.get("revision", "") if isinstance(bundle, dict) else None
        if not isinstance(revision, str):
            return None
        if revision:
            named.append(f"{name}={revision}")
    whole = ",".join(named) or configured or f"opa-{version or 'unknown'}"
    if len(whole) > _MAX_REVISION_CHARS:
        return f"sha256:{hashlib.sha256(whole.encode()).hexdigest()}"
    return whole
