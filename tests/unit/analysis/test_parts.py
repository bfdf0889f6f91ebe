"""Texts out of parts, known and unknown, short and too long."""

import pytest

from sandboxd.analysis.parts import UNKNOWN, Builder, Parts
from sandboxd.analysis.report import Report
from sandboxd.finding import FindingCode

LONGEST = 65536
MOST = 4 << 20


@pytest.mark.parametrize(
    ("parts", "whole", "shape"),
    [
        ([], "", ""),
        (["a"], "a", "a"),
        (["a", "", "b"], "ab", "ab"),
        (["a", None, "b"], None, f"a{UNKNOWN}b"),
        ([None, None], None, ""),
        (["", None], None, ""),
    ],
)
def test_whole_wants_every_part_and_shape_only_one(parts: Parts, whole: str | None, shape: str) -> None:
    builder = Builder(Report())
    assert builder.whole(parts) == whole
    assert builder.shape(parts) == shape


def test_text_that_is_too_long_is_not_built() -> None:
    builder = Builder(Report())
    assert builder.whole(["a" * (LONGEST - 1), "b"]) is not None
    assert builder.whole(["a" * LONGEST, "b"]) is None
    assert builder.whole(["a" * (LONGEST + 1)]) is None


def test_no_more_is_built_of_one_source_than_so_much_and_that_is_told() -> None:
    report = Report()
    builder = Builder(report)
    half = "a" * (LONGEST // 2)
    for _ in range(MOST // LONGEST):
        assert builder.whole([half, half]) is not None
    assert report.found == {}
    assert builder.whole([half, half]) is None
    assert report.found == {(FindingCode.CUT, "text"): 0}
    assert builder.whole([half]) == half, "what is there already needs no room"
