from pathlib import Path

from sandboxd.policy.rego_bundle import read_bundle
from sandboxd.policy.rego_tests import TestResult, run_tests

POLICY = "package p\n\nimport rego.v1\n\nallow if input.x == data.most\n"
GOOD = """package p_test

import rego.v1

test_allowed if data.p.allow with input as given

test_denied if not data.p.allow with input as {"x": 2}

test_wrong if data.p.allow with input as {"x": 2}

test_wrong if data.p.allow with input as {"x": 3}

todo_test_later if false

helper if true
"""


def bundle(directory: Path, **files: str) -> Path:
    (directory / "p.rego").write_text(POLICY)
    (directory / "data.json").write_text('{"most": 1}')
    (directory / "given_test.rego").write_text('package p_test\n\ngiven := {"x": 1}\n')
    for name, text in files.items():
        (directory / f"{name}_test.rego").write_text(text)
    return directory


def test_each_test_is_told_with_its_place_and_whether_it_passed(tmp_path: Path) -> None:
    results = run_tests(read_bundle([bundle(tmp_path, good=GOOD)], tests=True))
    assert results == (
        TestResult("good_test.rego", 5, "p_test.test_allowed", True),
        TestResult("good_test.rego", 7, "p_test.test_denied", True),
        TestResult("good_test.rego", 9, "p_test.test_wrong", False),
    )


def test_file_that_the_engine_cannot_take_fails_alone_and_says_why(tmp_path: Path) -> None:
    bad = "package p_test\n\nimport rego.v1\n\ntest_bad if data.p.allow with input.x as 1\n"
    unsafe = (
        'package p_test\n\nimport rego.v1\n\ntest_unsafe if { some v in [1]; data.p.allow with input as {"x": v} }\n'
    )
    found = {
        result.name: result
        for result in run_tests(read_bundle([bundle(tmp_path, good=GOOD, bad=bad, unsafe=unsafe)], tests=True))
    }
    assert found["p_test.test_allowed"].passed and found["p_test.test_denied"].passed
    assert not found["p_test.test_bad"].passed
    assert found["p_test.test_bad"].why.startswith("bad_test.rego:5: the embedded engine can replace")
    assert not found["p_test.test_unsafe"].passed and found["p_test.test_unsafe"].why


def test_bundle_without_tests_has_no_results(tmp_path: Path) -> None:
    assert run_tests(read_bundle([bundle(tmp_path)], tests=True)) == ()
