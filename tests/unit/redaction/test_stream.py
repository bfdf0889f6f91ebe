import itertools
from collections import Counter
from collections.abc import Iterable, Sequence

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from sandboxd.redaction.patterns import SHIPPED, Catalogue, Patterns, Source
from sandboxd.redaction.stream import StreamRedactor
from sandboxd.redaction.syntax import MAX_CHARS
from tests.unit.redaction import reference
from tests.unit.redaction.samples import SAMPLES

# Of few letters, so that they overlap, nest, begin in each other and touch.
SETS = {
    "one": {"p": Source("ab{1,3}c", 8)},
    "begin in each other": {"p": Source("aab", 8), "q": Source("ab(c|ca){1,2}", 8), "r": Source("ca", 8)},
    "longer where there is more": {"p": Source("a|ab{4}", 8), "q": Source("b(?:cc)?", 8)},
    "goes on": {"p": Source("ab+", 8), "q": Source("a[bc]{2,}", 8), "r": Source("c[ab]{1,2}a*", 8)},
    "block": {"p": Source("ab", 7, until="ba|c"), "q": Source("bc?", 5, until="aab"), "r": Source("cc", 8)},
    "bytes that are no text": {"p": Source(r"\x00[^a]{1,2}b", 8), "q": Source(r"[\x80-\xff]+", 8)},
    "any case": {"p": Source("(?i)a[b]c", 3), "q": Source("B[cC]*", 1)},
}
TEXTS = st.lists(st.sampled_from([b"a", b"b", b"c", b"a", b"b", b"\n", b"\x00", b"\xe9", b"B", b"C"]), max_size=24).map(
    b"".join
)
CUTS = st.lists(st.integers(0, 24), max_size=8)


def redacted(pieces: Iterable[bytes], patterns: Patterns) -> tuple[bytes, Counter[str]]:
    counts: Counter[str] = Counter()
    redactor = StreamRedactor(patterns, lambda name: counts.update([name]))
    return b"".join(map(redactor.feed, pieces)) + redactor.finish(), counts


def cut(text: bytes, places: Sequence[int]) -> list[bytes]:
    at = [0, *sorted(min(place, len(text)) for place in places), len(text)]
    return [text[first:last] for first, last in itertools.pairwise(at)]


def singly(text: bytes) -> list[bytes]:
    return [text[at : at + 1] for at in range(len(text))]


def patterns_of(sources: dict[str, Source]) -> Patterns:
    return Catalogue(sources).patterns(sources)


@pytest.mark.parametrize("sources", SETS.values(), ids=SETS)
@given(text=TEXTS, places=CUTS)
def test_every_cut_of_a_text_comes_to_what_the_whole_comes_to(
    sources: dict[str, Source], text: bytes, places: list[int]
) -> None:
    expected = reference.redacted(text, sources)
    assert redacted([text], patterns_of(sources)) == expected
    assert redacted(cut(text, places), patterns_of(sources)) == expected
    assert redacted(singly(text), patterns_of(sources)) == expected


@pytest.mark.parametrize("sources", SETS.values(), ids=SETS)
@given(text=TEXTS, places=CUTS)
def test_without_what_sees_all_patterns_at_once_it_comes_to_the_same(
    sources: dict[str, Source], text: bytes, places: list[int]
) -> None:
    patterns = patterns_of(sources)
    assert redacted(cut(text, places), Patterns(patterns.each, None)) == reference.redacted(text, sources)


@given(
    st.lists(
        st.sampled_from([*SAMPLES.values(), b"AKIA", b"eyJ", b"ghp_", b" ", b"\n", b"x", b"-----", b"xox", b"\xe9"])
    ),
    CUTS,
)
@example([b"Bearer ", SAMPLES["jwt"]], [3, 9])
def test_no_secret_leaves_in_any_cut(parts: list[bytes], places: list[int]) -> None:
    text = b"".join(parts)
    whole = redacted([text], Catalogue().patterns(SHIPPED))
    assert redacted(cut(text, [place * 7 for place in places]), Catalogue().patterns(SHIPPED)) == whole
    assert not any(sample in whole[0] for sample in SAMPLES.values())


@pytest.mark.parametrize("name", SAMPLES)
def test_each_secret_is_found_byte_by_byte(name: str) -> None:
    text = b"before " + SAMPLES[name] + b" behind"
    out, counts = redacted(singly(text), Catalogue().patterns([name]))
    assert out == b"before [redacted:%b] behind" % name.encode()
    assert counts == {name: 1}


def test_no_byte_of_a_secret_is_passed_on_before_it_ends() -> None:
    secret = SAMPLES["github-token"]
    redactor = StreamRedactor(Catalogue().patterns(["github-token"]), lambda _: None)
    passed = b"".join(map(redactor.feed, singly(b"token=" + secret)))
    assert passed in (b"token=", b"token=[redacted:github-token]")


@pytest.mark.parametrize("line", [b"step 1 of 3\n", b"$ \n", b"100 %\r", b"done. \n"])
def test_ordinary_lines_are_passed_on_at_once(line: bytes) -> None:
    redactor = StreamRedactor(Catalogue().patterns(SHIPPED), lambda _: None)
    assert redactor.feed(line) == line


@pytest.mark.parametrize(
    "data",
    [b"AKIA", b"-----BEGIN ", b"eyJhbGci", b"glpat-", b"aws_secret_access_key ", b"a", b"A" * 19 + b" "],
    ids=lambda data: data.decode(),
)
def test_what_is_held_back_stays_small_whatever_comes(data: bytes) -> None:
    redactor = StreamRedactor(Catalogue().patterns(SHIPPED), lambda _: None)
    most = 0
    for _ in range(300):
        redactor.feed(data * 7)
        most = max(most, redactor.held)
    assert most < 128


def test_a_block_without_an_end_is_taken_out_up_to_its_bound_and_not_held_in_memory() -> None:
    bound = SHIPPED["private-key"].max_bytes
    redactor = StreamRedactor(Catalogue().patterns(["private-key"]), lambda _: None)
    begin = b"-----BEGIN PRIVATE KEY-----"
    assert redactor.feed(b"x" + begin) == b"x[redacted:private-key]"
    for _ in range(100):
        assert redactor.feed(b"s" * 512) == b""
        assert redactor.held < 128
    rest = bound - len(begin) - 512 * 100
    assert redactor.feed(b"s" * rest + b"behind") + redactor.finish() == b"behind"


def test_a_match_that_goes_on_for_ever_is_not_held_in_memory() -> None:
    redactor = StreamRedactor(Catalogue().patterns(["jwt"]), lambda _: None)
    redactor.feed(SAMPLES["jwt"])
    for _ in range(1000):
        assert redactor.feed(b"A" * MAX_CHARS) == b""
    assert redactor.held == 0
    assert redactor.feed(b" out") == b" out"


def test_nothing_at_all_comes_to_nothing() -> None:
    assert redacted([], Catalogue().patterns(SHIPPED)) == (b"", Counter())
    assert redacted([b"", b""], Catalogue().patterns(SHIPPED)) == (b"", Counter())


def test_without_patterns_everything_is_passed_on() -> None:
    redactor = StreamRedactor(Catalogue().patterns(["nonsense"]), lambda _: None)
    assert redactor.feed(SAMPLES["jwt"]) == SAMPLES["jwt"]
    assert redactor.finish() == b""
