from sandboxd.model import Collected, EndReason, Outcome, OutputFile, Usage, Violation
from sandboxd.redaction.document import REDACTED
from sandboxd.redaction.patterns import Catalogue, Source
from sandboxd.redaction.redaction import GROWN, NAMED, PIECE_BYTES, Redaction
from tests.unit.redaction.samples import SAMPLES

TOKEN = SAMPLES["github-token"].decode()
OUTCOME = Outcome("e1", EndReason.EXITED, 0, None, Usage(wall_seconds=1.0))


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
