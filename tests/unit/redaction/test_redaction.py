import hmac
import json
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandboxd.errors import InvalidRequest, Unenforceable
from sandboxd.event import ExecutionEnded, ExecutionRefused, ExecutionRequested, PolicyDecided
from sandboxd.model import (
    Agent,
    ArgvProgram,
    Chunk,
    CodeProgram,
    Collected,
    Decision,
    EndReason,
    ExecuteRequest,
    ExitStatus,
    Obligations,
    Outcome,
    OutputFile,
    Stream,
    Usage,
    Verdict,
    Violation,
)
from sandboxd.profile.load import load_profiles
from sandboxd.redaction.document import REDACTED
from sandboxd.redaction.patterns import Catalogue, Source
from sandboxd.redaction.redaction import DIGITS, GROWN, NAMED, PIECE_BYTES, Redaction, Redactions
from tests.fakes.runtime import FakeProgram
from tests.unit.redaction.samples import SAMPLES
from tests.unit.test_execution import CALLER, PROFILES, Node

TOKEN = SAMPLES["github-token"].decode()
OUTCOME = Outcome("e1", EndReason.EXITED, 0, None, Usage(wall_seconds=1.0))


def digest(data: bytes) -> str:
    return hmac.digest(b"k", data, "sha256").hex()


def redaction(*names: str) -> Redaction:
    return Redaction(Catalogue({"tiny": Source("!", 1)}).patterns(names or ("github-token", "slack-token")))


def file(path: str, content: bytes) -> OutputFile:
    return OutputFile(path, content, 0o644)


def test_streams_of_one_execution_are_counted_together() -> None:
    both = redaction()
    for stream in (both.stream(), both.stream()):
        assert stream.feed(TOKEN.encode() + b" ") == b"[redacted:github-token] "
    assert both.counts == (("github-token", 2),)


def test_text_is_redacted_and_not_counted() -> None:
    about = redaction()
    assert about.text(f"ran {TOKEN!r}") == "ran '[redacted:github-token]'"
    assert about.text("é \udcff plain") == "é \udcff plain"
    assert about.counts == ()


def test_text_with_odd_characters_beside_a_match_stays_text() -> None:
    assert redaction().text(f"\udcff{TOKEN} é") == "\\xed\\xb3\\xbf[redacted:github-token] é"


def test_marker_on_record_tells_equal_values_and_no_value() -> None:
    patterns = Catalogue().patterns(("github-token", "jwt"))
    on_record = Redaction(patterns, digest)
    other = TOKEN[:-1] + ("a" if TOKEN[-1] != "a" else "b")
    first, second = on_record.text(f"a {TOKEN} b {TOKEN}"), on_record.text(f"{other}")
    of_token = digest(TOKEN.encode())[:DIGITS]
    assert first == f"a [redacted:github-token:{of_token}] b [redacted:github-token:{of_token}]"
    assert second == f"[redacted:github-token:{digest(other.encode())[:DIGITS]}]"
    document = on_record.document(json.dumps({"argv": ["x", TOKEN]}).encode())
    assert json.loads(document) == {"argv": ["x", {REDACTED: f"github-token:{of_token}"}]}


@given(parts=st.lists(st.sampled_from([*SAMPLES.values(), b"x", b" ", b"ghp_", b"-----END PRIVATE KEY-----", b"eyJ"])))
def test_a_whole_text_is_redacted_as_a_stream_of_it_is(parts: list[bytes]) -> None:
    text = b"".join(parts)
    whole = Redaction(Catalogue().patterns(tuple(SAMPLES)))
    stream = whole.stream()
    expected = stream.feed(text) + stream.finish()
    assert whole.text(text.decode("latin-1").encode("latin-1").decode("utf-8", "backslashreplace")).encode() == expected


def test_document_says_which_patterns_were_in_a_text() -> None:
    both = f"{TOKEN} {SAMPLES['slack-token'].decode()}"
    assert redaction().document(f'["x","{both}"]'.encode()) == (
        b'["x",{"%b":"github-token, slack-token"}]' % REDACTED.encode()
    )


def test_outcome_has_the_counts_and_no_match_in_its_texts() -> None:
    about = redaction()
    about.stream().feed(TOKEN.encode() + b"\n")
    outcome = about.outcome(
        Outcome(
            *("e1", EndReason.EXITED, 0, None, OUTCOME.usage),
            violations=(Violation("policy", "no", f"{TOKEN} was not run"),),
            message_for_agent=f"not {TOKEN}",
        )
    )
    assert outcome.violations == (Violation("policy", "no", "[redacted:github-token] was not run"),)
    assert outcome.message_for_agent == "not [redacted:github-token]"
    assert outcome.redactions == (("github-token", 1),)


async def test_files_are_redacted_across_the_pieces_they_are_read_in() -> None:
    about = redaction()
    padding = b"x" * (PIECE_BYTES - 7)
    got = await about.collected(
        Collected((file("a", padding + TOKEN.encode()), file("b", b"plain")), (), limit_reached=False), 1 << 20
    )
    assert got.files == (file("a", padding + b"[redacted:github-token]"), file("b", b"plain"))
    assert got.skipped == ()
    assert about.counts == (("github-token", 1),)


async def test_file_whose_name_holds_a_match_does_not_go() -> None:
    about = redaction()
    got = await about.collected(
        Collected((file(f"out/{TOKEN}", b"x"),), ((f"{TOKEN}/y", "too large"),), limit_reached=False), 100
    )
    assert got.files == ()
    assert got.skipped == (("[redacted:github-token]/y", "too large"), ("out/[redacted:github-token]", NAMED))
    assert about.counts == (("github-token", 1),)


async def test_files_that_their_markers_make_too_long_together_do_not_go() -> None:
    got = await redaction("tiny").collected(
        Collected((file("a", b"!"), file("b", b"!!"), file("c", b"!")), (), limit_reached=False), 35
    )
    assert [one.path for one in got.files] == ["a", "c"]
    assert got.skipped == (("b", GROWN),)
    assert got.limit_reached


# --- one execution, whole

OURS = Source("ours_[a-z]{4}", 9)
REQUEST = ExecuteRequest(ArgvProgram(("/bin/echo", TOKEN, "ours_word")), collect=("*",))


@pytest.fixture
async def node() -> AsyncIterator[Node]:
    made = Node(load_profiles([PROFILES]))
    made.executor.redactions = Redactions(Catalogue({"ours": OURS}))
    yield made
    await made.analyser.close()


def demand(*names: str) -> Decision:
    return Decision(Verdict.TRANSFORM, (), "r1", obligations=Obligations(redact=names))


def prints(node: Node, *pieces: bytes) -> None:
    async def script(program: FakeProgram) -> ExitStatus:
        node.runtime.sandboxes[-1].files = (OutputFile("out.txt", b"".join(pieces), 0o644),)
        for piece in pieces:
            await program.stdout(piece)
            await program.stderr(piece)
        return ExitStatus(0, None)

    node.runtime.script = script


async def test_what_is_told_kept_and_counted_of_an_execution_holds_no_match(node: Node) -> None:
    prints(node, b"x ", *(bytes((byte,)) for byte in TOKEN.encode()), b" ours_word")
    node.engine.answer = demand("github-token")
    items = await node.items(REQUEST)
    rest = b"x [redacted:github-token] ours_word"
    streams = dict.fromkeys(Stream, b"")
    for chunk in items:
        if isinstance(chunk, Chunk):
            assert chunk.offset == len(streams[chunk.stream])
            streams[chunk.stream] += chunk.data
    assert streams == dict.fromkeys(Stream, rest)
    outcome = items[-1]
    assert isinstance(outcome, Outcome)
    assert [file.content for file in outcome.files] == [rest]
    assert outcome.redactions == (("github-token", 3),)
    assert node.registry.logs(outcome.execution_id, CALLER) == (rest, rest)
    record = node.registry.get(outcome.execution_id, CALLER)
    assert record.command == "/bin/echo [redacted:github-token] ours_word"
    assert record.outcome is not None and record.outcome.redactions == outcome.redactions
    ended = node.recorder.events[-1]
    assert isinstance(ended, ExecutionEnded)
    assert ended.redactions == outcome.redactions


async def test_profile_and_program_may_both_demand(node: Node) -> None:
    prints(node, TOKEN.encode(), b" ours_word")
    node.engine.use, node.engine.answer = demand("ours"), demand("github-token")
    outcome = (await node.items(REQUEST))[-1]
    assert isinstance(outcome, Outcome)
    assert outcome.redactions == (("github-token", 3), ("ours", 3))


async def test_without_a_demand_nothing_is_taken_out(node: Node) -> None:
    prints(node, TOKEN.encode())
    items = await node.items(REQUEST)
    assert b"".join(item.data for item in items if isinstance(item, Chunk)) == TOKEN.encode() * 2
    outcome = items[-1]
    assert isinstance(outcome, Outcome)
    assert outcome.redactions == ()


@pytest.mark.parametrize("where", ["use", "answer"])
async def test_unknown_name_beside_a_known_one_is_refused_and_nothing_runs(node: Node, where: str) -> None:
    setattr(node.engine, where, demand("github-token", "theirs"))
    error = await node.refusal(REQUEST)
    assert type(error) is Unenforceable
    assert error.reason == "obligation_unsupported"
    assert "'theirs'" in error.message and "github-token" not in error.message
    assert node.runtime.launches == []


async def test_what_was_decided_on_is_stored_without_what_is_demanded(node: Node) -> None:
    node.engine.answer = demand("github-token")
    await node.items(REQUEST)
    (decided,) = (
        event for event in node.recorder.events if isinstance(event, PolicyDecided) if "start" in event.action
    )
    stored = json.loads(node.recorder.documents[decided.input_sha256])
    assert stored["action"]["argv"] == ["/bin/echo", {REDACTED: "github-token"}, "ours_word"]
    # What was asked for was on record before anybody knew of the demand.
    assert TOKEN.encode() in node.recorder.documents[requested(node).input_sha256]


async def test_record_of_a_request_is_without_what_the_node_takes_out_of_all(node: Node) -> None:
    node.executor.redactions = Redactions(Catalogue({"ours": OURS}), ("github-token",))
    prints(node, TOKEN.encode())
    node.engine.answer = demand("ours")
    items = await node.items(REQUEST)
    event = requested(node)
    assert event.command == "/bin/echo [redacted:github-token] ours_word"
    assert TOKEN.encode() not in b"".join(node.recorder.documents.values())
    assert b"".join(item.data for item in items if isinstance(item, Chunk)) == TOKEN.encode() * 2
    (record,) = node.registry.list(CALLER)
    assert record.command == "/bin/echo [redacted:github-token] [redacted:ours]"


async def test_every_text_of_a_request_that_is_on_record_is_redacted(node: Node) -> None:
    node.executor.redactions = Redactions(requests=("github-token", "bearer-token"))
    gone = "[redacted:github-token]"
    await node.items(
        ExecuteRequest(
            ArgvProgram(("/bin/echo", "Bearer", "a" * 24)),
            labels=(("a", TOKEN), (TOKEN, "b")),
            agent=Agent(f"x {TOKEN}", TOKEN, TOKEN, TOKEN),
        )
    )
    event = requested(node)
    assert event.command == "/bin/echo [redacted:bearer-token]"
    assert event.labels == (("a", gone), (gone, "b"))
    assert (event.agent_name, event.agent_session_id, event.tool_name, event.tool_use_id) == (f"x {gone}", *[gone] * 3)
    source = Redactions(requests=("github-token",)).of_requests
    assert source is not None
    told = source.request(ExecuteRequest(CodeProgram("python", f"print('{TOKEN}')"), profile=TOKEN))
    assert (told.program, told.profile) == (CodeProgram("python", f"print('{gone}')"), gone)


async def test_token_in_an_argument_of_its_own_is_in_no_document(node: Node) -> None:
    node.executor.redactions = Redactions(requests=("bearer-token",))
    await node.items(replace(REQUEST, program=ArgvProgram(("/bin/echo", "Bearer", "a" * 24))))
    assert b"a" * 24 not in b"".join(node.recorder.documents.values())
    assert b'"argv":{"%b":"bearer-token"}' % REDACTED.encode() in node.recorder.documents[requested(node).input_sha256]


async def test_refusal_is_on_record_without_what_it_says_of_the_request(node: Node) -> None:
    node.executor.redactions = Redactions(requests=("github-token",))
    with pytest.raises(InvalidRequest, match=TOKEN):
        await node.items(replace(REQUEST, profile=TOKEN))
    refused = node.recorder.events[-1]
    assert isinstance(refused, ExecutionRefused)
    assert refused.message.startswith("profile '[redacted:github-token]' is unknown")


async def test_command_is_redacted_before_it_is_cut(node: Node) -> None:
    node.executor.redactions = Redactions(requests=("github-token",))
    await node.items(replace(REQUEST, program=ArgvProgram(("/bin/echo", "x" * 490, TOKEN))))
    (record,) = node.registry.list(CALLER)
    assert TOKEN[:4] not in record.command


def requested(node: Node) -> ExecutionRequested:
    event = node.recorder.events[0]
    assert isinstance(event, ExecutionRequested)
    return event
