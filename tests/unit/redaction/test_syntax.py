import pytest

from sandboxd.redaction.syntax import ANY, MAX_CHARS, Bytes, Choice, ExpressionInvalid, Repeat, Sequel, read


def one(text: str) -> frozenset[int]:
    """The bytes of an expression that matches a single one."""
    node = read(text)
    assert isinstance(node, Sequel)
    (part,) = node.parts
    assert isinstance(part, Bytes)
    return part.of


@pytest.mark.parametrize(
    ("text", "members"),
    [
        ("a", b"a"),
        (r"\.", b"."),
        (r"\x41", b"A"),
        (r"\n", b"\n"),
        (r"\d", b"0123456789"),
        (r"\s", b"\t\n\f\r "),
        ("[a-c_]", b"abc_"),
        ("[-a]", b"-a"),
        ("[a-]", b"-a"),
        (r"[\]\\^]", b"]\\^"),
        (r"[\d.]", b"0123456789."),
        (r"[\x00-\x02]", b"\0\1\2"),
        ("(?i)a", b"aA"),
        ("(?i)[b-c]", b"bcBC"),
    ],
)
def test_single_byte_is_read(text: str, members: bytes) -> None:
    assert one(text) == frozenset(members)


@pytest.mark.parametrize(
    ("text", "others"), [(".", b"\n"), (r"\D", b"0123456789"), ("[^ab]", b"ab"), ("(?i)[^a]", b"aA")]
)
def test_all_but_some_bytes_are_read(text: str, others: bytes) -> None:
    assert one(text) == ANY - frozenset(others)


@pytest.mark.parametrize(
    ("text", "least", "most"),
    [("a?", 0, 1), ("a*", 0, None), ("a+", 1, None), ("a{3}", 3, 3), ("a{2,}", 2, None), ("a{2,5}", 2, 5)],
)
def test_repeats_are_read(text: str, least: int, most: int | None) -> None:
    assert read(text) == Sequel((Repeat(Bytes(frozenset(b"a")), least, most),))


@pytest.mark.parametrize("text", ["a|b", "a|b"])
def test_choices_are_read(text: str) -> None:
    assert read(text) == Choice((Sequel((Bytes(frozenset(b"a")),)), Sequel((Bytes(frozenset(b"b")),))))


@pytest.mark.parametrize("text", ["(a|b)", "(?:a|b)"])
def test_groups_are_read_and_mean_nothing_more(text: str) -> None:
    assert read(text) == Sequel((read("a|b"),))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a" * (MAX_CHARS + 1), "has 1025 characters"),
        ("é", "holds 'é'"),
        ("a\n", r"holds '\n'"),
        ("^a", "at character 1: '^' is a place"),
        ("a$", "at character 2: '$' is a place"),
        (r"\ba", r"'\b' is a place"),
        (r"a\z", r"'\z' is a place"),
        (r"\p", r"'\p' is not known"),
        (r"\1", r"'\1' is not known"),
        ("\\", "is not known"),
        (r"\x4", r"\x takes two hexadecimal digits"),
        ("(?P<x>a)", "only (x) and (?:x) are known"),
        ("a(?i)b", "only (x) and (?:x) are known"),
        ("(a", "'(' is not closed"),
        ("a)", "')' closes nothing"),
        ("[a", "'[' is not closed"),
        ("[[:alpha:]]", "'[' inside a class"),
        ("[z-a]", "a range of a class goes from one byte up to another"),
        (r"[\d-z]", "a range of a class goes from one byte up to another"),
        (r"[^\x00-\xff]", "a class that holds no byte"),
        ("[]", "a class that holds no byte"),
        ("*a", "'*' has nothing before it"),
        ("a**", "a repeat of a repeat"),
        ("a+?", "a repeat of a repeat"),
        ("a{,3}", "a repeat is {N}, {N,} or {N,M}"),
        ("a{x}", "a repeat is {N}, {N,} or {N,M}"),
        ("a{3", "a repeat is {N}, {N,} or {N,M}"),
        ("a{01,3}", "a repeat is {N}, {N,} or {N,M}"),
        ("a{1,03}", "a repeat is {N}, {N,} or {N,M}"),
        ("a{99999}", "a repeat is {N}, {N,} or {N,M}"),
        ("a{3,2}", "a repeat from 3 to 2"),
        ("a{0}", "a repeat from 0 to 0"),
        ("(" * 17 + ")" * 17, "nested deeper than 16"),
    ],
)
def test_what_is_not_of_the_syntax_is_refused_with_its_place(text: str, message: str) -> None:
    with pytest.raises(ExpressionInvalid) as caught:
        read(text)
    assert message in str(caught.value)
