"""`sandboxctl policy test`, beside a real opa where the machine has one."""

import os
from pathlib import Path

import pytest

from sandboxd.cli.mistake import Mistake
from sandboxd.cli.policy_tests import run
from sandboxd.errors import PolicyInvalid
from tests.bundles import public_file, release
from tests.opa import need_opa

POLICY = "package sandboxd\n\nimport rego.v1\n\ndefault decision := false\n\ndecision if input.node == data.home\n"
TESTS = """package sandboxd_test

import rego.v1

test_home if data.sandboxd.decision with input as {"node": "here"}

test_elsewhere if not data.sandboxd.decision with input as {"node": "there"}
"""


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    directory = tmp_path / "policy"
    (directory / "tests").mkdir(parents=True)
    (directory / "policy.rego").write_text(POLICY)
    (directory / "data.json").write_text('{"home": "here"}')
    (directory / "tests" / "policy_test.rego").write_text(TESTS)
    return directory


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The only directory of PATH: empty."""
    directory = tmp_path / "bin"
    directory.mkdir()
    monkeypatch.setenv("PATH", str(directory))
    return directory


@pytest.fixture
def opa(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "opa").symlink_to(need_opa())
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")


def test_passing_tests_exit_0_and_the_lack_of_opa_is_said(
    bundle: Path, path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run([bundle], None) == 0
    assert capsys.readouterr().out == (
        "embedded engine: 2 tests, 2 passed\nopa: not on PATH, so nothing was compared\n"
    )


def test_failing_test_exits_1_and_is_named_with_its_place(
    bundle: Path, path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (bundle / "data.json").write_text('{"home": "there"}')
    assert run([bundle], None) == 1
    told = capsys.readouterr().out
    assert "FAIL tests/policy_test.rego:5: sandboxd_test.test_home\n" in told
    assert "FAIL tests/policy_test.rego:7: sandboxd_test.test_elsewhere\n" in told
    assert "embedded engine: 2 tests, 0 passed\n" in told


@pytest.mark.usefixtures("opa")
def test_both_engines_run_the_same_tests(bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run([bundle], None) == 0
    assert "opa: 2 tests, 2 passed\n" in capsys.readouterr().out
    (bundle / "data.json").write_text('{"home": "nowhere"}')
    assert run([bundle], None) == 1
    told = capsys.readouterr().out
    assert "embedded engine: 2 tests, 1 passed\nopa: 2 tests, 1 passed\n" in told
    assert "DIFFERS" not in told


@pytest.mark.usefixtures("opa")
def test_engines_that_do_not_agree_fail_and_the_test_is_named(bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A `with` on a part of the input is one of the things that opa alone can do."""
    more = 'package more_test\n\nimport rego.v1\n\ntest_part if data.sandboxd.decision with input.node as "here"\n'
    (bundle / "more_test.rego").write_text(more)
    assert run([bundle], None) == 1
    told = capsys.readouterr().out
    assert "DIFFERS more_test.test_part: fails in the embedded engine, passes in opa\n" in told
    assert "FAIL more_test.rego:5: more_test.test_part: more_test.rego:5: the embedded engine can replace" in told


@pytest.mark.usefixtures("opa")
def test_what_opa_cannot_load_is_told(bundle: Path) -> None:
    (bundle / "policy.rego").write_text(POLICY + "\nunsafe if other == 1\n")
    with pytest.raises(Mistake, match=r"opa cannot run these tests: .*policy\.rego:\d+: rego_unsafe_var_error"):
        run([bundle], None)


def test_policy_that_the_daemon_would_refuse_has_no_tests_run(bundle: Path, path: Path) -> None:
    (bundle / "policy.rego").write_text(POLICY + '\nx := http.send({"url": "http://a"})\n')
    with pytest.raises(PolicyInvalid, match=r"policy\.rego:9: 'http\.send' is not a function"):
        run([bundle], None)
    (bundle / "policy.rego").write_text(POLICY)
    (bundle / "tests" / "policy_test.rego").write_text(TESTS + "\nx := opa.runtime()\n")
    with pytest.raises(PolicyInvalid, match=r"policy_test\.rego:9: 'opa\.runtime' is not a function"):
        run([bundle], None)


def test_policy_without_tests_is_a_mistake(bundle: Path, path: Path) -> None:
    (bundle / "tests" / "policy_test.rego").unlink()
    with pytest.raises(Mistake, match="there is no test in this policy"):
        run([bundle], None)


def test_signed_bundle_is_tested_if_the_key_is_right(tmp_path: Path, path: Path) -> None:
    bundle = release(tmp_path / "b.tar.gz", 1)
    with pytest.raises(Mistake, match="no test"):
        run([bundle], public_file(tmp_path))
    with pytest.raises(PolicyInvalid, match=r"not of policy\.verification_key"):
        run([bundle], public_file(tmp_path, "ec"))
