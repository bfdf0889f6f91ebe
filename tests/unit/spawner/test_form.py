"""A form reads back what it wrote, and nothing that another type would have written."""

import json
from dataclasses import dataclass

import pytest

from sandboxd.spawner.form import Misfit, form_of


@dataclass(frozen=True, slots=True)
class Sample:
    count: int
    name: str
    share: float
    words: tuple[str, ...]
    pairs: tuple[tuple[str, float], ...]


FORM = form_of(Sample)
SAMPLE = Sample(-3, "ü\0\ud800", 0.5, ("a", "b"), (("x", 1.0), ("y", 2.5)))
BODY: dict[str, object] = {
    "count": -3,
    "name": "ü\0\ud800",
    "share": 0.5,
    "words": ["a", "b"],
    "pairs": [["x", 1.0], ["y", 2.5]],
}


def test_what_is_written_is_read_back() -> None:
    assert FORM.read(json.loads(json.dumps(FORM.write(SAMPLE)))) == SAMPLE
    assert list(FORM.write(SAMPLE)) == ["count", "name", "share", "words", "pairs"]


def test_lists_of_json_become_tuples() -> None:
    assert FORM.read(BODY) == SAMPLE
    assert FORM.read(BODY | {"words": [], "pairs": []}) == Sample(-3, "ü\0\ud800", 0.5, (), ())


def test_reading_takes_nothing_out_of_the_body() -> None:
    body = dict(BODY)
    FORM.read(body)
    assert body == BODY


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("count", True),
        ("count", 1.0),
        ("count", "1"),
        ("count", None),
        ("count", 1 << 63),
        ("count", -(1 << 63) - 1),
        ("name", None),
        ("name", 1),
        ("name", ["a"]),
        ("share", True),
        ("share", "1"),
        ("share", None),
        ("share", float("nan")),
        ("share", float("inf")),
        ("share", float("-inf")),
        ("share", 10**400),
        ("share", -(10**400)),
        ("words", "ab"),
        ("words", {"a": "b"}),
        ("words", [1]),
        ("words", None),
        ("pairs", ["ab"]),
        ("pairs", [["a"]]),
        ("pairs", [["a", 1.0, 1.0]]),
        ("pairs", [["a", "b"]]),
        ("pairs", [[1.0, "a"]]),
        ("pairs", {"a": 1.0}),
    ],
)
def test_value_of_another_type_is_refused_with_its_field(field: str, value: object) -> None:
    with pytest.raises(Misfit, match=rf"^Sample\.{field}: "):
        FORM.read(BODY | {field: value})


@pytest.mark.parametrize("count", [(1 << 63) - 1, -(1 << 63), 0])
def test_number_of_64_bits_is_read(count: int) -> None:
    assert FORM.read(BODY | {"count": count}).count == count


def test_whole_number_is_a_fine_float() -> None:
    share = FORM.read(BODY | {"share": 3}).share
    assert (share, type(share)) == (3.0, float)


def test_missing_and_unknown_fields_are_refused_by_name() -> None:
    with pytest.raises(Misfit, match=r"^Sample: fields \['count', 'more', 'name', 'pairs', 'share', 'words'\] are not"):
        FORM.read(BODY | {"more": 1})
    with pytest.raises(Misfit, match=r"^Sample: fields \['name', 'pairs', 'share', 'words'\] are not"):
        FORM.read({name: value for name, value in BODY.items() if name != "count"})


def test_type_that_no_message_may_have_is_an_error_at_once() -> None:
    @dataclass(frozen=True, slots=True)
    class Wrong:
        anything: dict[str, str]

    with pytest.raises(KeyError):
        form_of(Wrong)
