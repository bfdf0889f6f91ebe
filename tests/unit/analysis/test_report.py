import random

from sandboxd.analysis.commandline import SHELL, Code
from sandboxd.analysis.report import (
    MAX_DETAIL_CHARS,
    MAX_EMBEDDED,
    MAX_FINDINGS,
    MAX_OF_A_CODE,
    Report,
    entropy,
)
from sandboxd.finding import Failure, FindingCode

CUT_IMPORTS = (FindingCode.CUT, "import")


def test_the_same_thing_is_found_once_and_on_its_first_line() -> None:
    report = Report()
    report.add(FindingCode.IMPORT, "os", 3)
    report.add(FindingCode.IMPORT, "os", 7)
    assert report.found == {(FindingCode.IMPORT, "os"): 3}


def test_many_of_one_code_are_cut_with_a_marker_and_push_out_no_other() -> None:
    report = Report()
    for number in range(1000):
        report.add(FindingCode.IMPORT, f"m{number}", number)
    report.add(FindingCode.PROCESS_START, "os.system", 1001)
    assert len(report.found) == MAX_OF_A_CODE + 2
    assert report.found[CUT_IMPORTS] == MAX_OF_A_CODE
    assert (FindingCode.PROCESS_START, "os.system") in report.found


def test_as_many_as_there_may_be_are_not_cut() -> None:
    report = Report()
    for number in range(MAX_OF_A_CODE):
        report.add(FindingCode.IMPORT, f"m{number}", 1)
    assert CUT_IMPORTS not in report.found


def test_no_source_makes_more_than_the_most() -> None:
    report = Report()
    for code in FindingCode:
        for number in range(100):
            report.add(code, str(number), 1)
    assert len(report.found) <= MAX_FINDINGS


def test_long_details_are_cut_visibly() -> None:
    report = Report()
    report.add(FindingCode.IMPORT, "x" * MAX_DETAIL_CHARS, 1)
    report.add(FindingCode.IMPORT, "y" * 100_000, 1)
    exact, cut = (detail for _, detail in report.found)
    assert exact == "x" * MAX_DETAIL_CHARS
    assert len(cut) == MAX_DETAIL_CHARS and cut.endswith("y…")


def test_a_failure_is_a_finding() -> None:
    report = Report()
    report.fail(Failure.SYNTAX, 4)
    assert report.found == {(FindingCode.FAILED, "syntax"): 4}


def test_embedded_source_is_bounded_with_a_marker() -> None:
    report = Report()
    report.embed(None, 1)
    report.embed(Code(SHELL, ""), 1)
    assert report.embedded == []
    for number in range(MAX_EMBEDDED + 3):
        report.embed(Code(SHELL, f"a{number}"), number)
    assert len(report.embedded) == MAX_EMBEDDED
    assert report.found == {(FindingCode.CUT, "embedded"): MAX_EMBEDDED}


def test_entropy_is_in_bits_per_byte() -> None:
    assert entropy(b"") == 0
    assert entropy(b"aaaa") == 0
    assert entropy(b"abab") == 1
    assert entropy(bytes(range(256))) == 8
    assert 7.9 < entropy(random.Random(1).randbytes(100_000)) <= 8
