import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sandboxd.errors import ProfileInvalid
from sandboxd.profile.document import MAX_BYTES, read


def test_values_keep_their_yaml_12_types_and_lines() -> None:
    document = read(b"a: 1\nb: [yes, 0x10, 1.5, null, 'true', true]\nc:\n  d: 010\n  e: 1e3\n", "p.yaml")
    assert document.value == {"a": 1, "b": ["yes", 16, 1.5, None, "true", True], "c": {"d": 10, "e": 1000.0}}
    assert document.line(("c", "e")) == 5
    assert document.line(("c", "e", "deeper")) == 5
    assert document.line(("b", 2)) == 2


@pytest.mark.parametrize(
    ("data", "line", "words"),
    [
        (b"a: 1\nb: 2\na: 3\n", 3, "duplicate key 'a', first on line 1"),
        (b"x:\n  'a': 1\n  \"a\": 2\n", 3, "duplicate key"),
        (b"a: &x 1\nb: *x\n", 1, "anchors and aliases"),
        (b"a:\n  <<: *x\n", 2, "anchors and aliases"),
        (b"a: !!python/object:os.system x\n", 1, "tag"),
        (b"a: 1\n---\nb: 2\n", 2, "second document"),
        (b"1: a\n", 1, "not a word"),
        (b"[a]: b\n", 1, "key must be a plain word"),
        (b"- a\n", 1, "not a profile"),
        (b"", 1, "not a profile"),
        (b"a: 1\nb: [\n", 3, "not YAML"),
        (b"a: 1\n\nb: \xff\n", 3, "not UTF-8"),
        (b"a: \x00\n", 1, "not YAML"),
        (b"%YAML 1.0\na: 1\n", 1, "not YAML"),
        (b"a: " + b"[" * 40 + b"]" * 40, 1, "nested deeper"),
        (b"#" * (MAX_BYTES + 1), 1, "more than a profile may have"),
        (b"a: [" + b"1," * 30000 + b"1]", 1, "more than 20000 values"),
    ],
)
def test_what_is_outside_of_the_subset_is_refused_with_its_line(data: bytes, line: int, words: str) -> None:
    with pytest.raises(ProfileInvalid) as caught:
        read(data, "p.yaml")
    assert caught.value.message.startswith(f"p.yaml:{line}: ")
    assert words in caught.value.message


def test_a_long_row_of_digits_is_text_and_takes_no_time() -> None:
    assert read(b"a: " + b"9" * 100_000, "p").value["a"] == "9" * 100_000


@settings(max_examples=300, deadline=None)
@given(
    st.text(alphabet="ab:-[]{}&*!|>'\"%@`#,? \n\t0x.\\\ufeff\x85~<", max_size=60).map(str.encode)
    | st.binary(max_size=40)
)
def test_any_bytes_are_a_document_or_a_refusal(data: bytes) -> None:
    try:
        document = read(data, "fuzz")
    except ProfileInvalid as error:
        assert error.message.startswith("fuzz:")
    else:
        assert isinstance(document.value, dict)
