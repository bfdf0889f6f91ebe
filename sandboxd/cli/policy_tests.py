"""`sandboxctl policy test`: a bundle's own tests in the embedded engine and, beside it, in the `opa` of this machine.

The exit code is for a pipeline. Called by `policy`.
"""

import asyncio
import json
import shutil
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from sandboxd.cli.mistake import Mistake
from sandboxd.cli.policy_engine import running, settings
from sandboxd.cli.printable import printable
from sandboxd.policy.rego_builtins import check_calls, package
from sandboxd.policy.rego_bundle import Bundle, read_bundle
from sandboxd.policy.rego_literals import check_literals
from sandboxd.policy.rego_tests import TestResult, run_tests

OPA_SECONDS = 120
PASSED, FAILED = 0, 1
_FAILED_TESTS = 2  # opa's exit code where a test failed


def run(paths: Sequence[Path], key: Path | None) -> int:
    """Prints what failed, and gives the exit code. PolicyInvalid if the policy would not load, Mistake if opa fails."""
    policy = settings(paths, key)
    asyncio.run(_prove(paths, key))
    bundle = read_bundle(policy.bundle_paths, policy.key_path, tests=True)
    check_calls([*bundle.modules, *bundle.tests])
    check_literals([*bundle.modules, *bundle.tests])
    results = run_tests(bundle)
    if not results:
        raise Mistake("there is no test in this policy; write rules named test_… into a file named …_test.rego")
    _print_failures(results)
    failed = sum(not result.passed for result in results)
    _say(f"embedded engine: {len(results)} tests, {len(results) - failed} passed")
    opa = shutil.which("opa")
    if opa is None:
        _say("opa: not on PATH, so nothing was compared")
        return FAILED if failed else PASSED
    theirs = _in_opa(opa, bundle)
    _say(f"opa: {len(theirs)} tests, {sum(theirs.values())} passed")
    differing = _print_differences({result.name: result.passed for result in results}, theirs)
    return FAILED if failed or differing or not all(theirs.values()) else PASSED


async def _prove(paths: Sequence[Path], key: Path | None) -> None:
    async with running(settings(paths, key)):
        """It loads, and answers its samples."""


def _print_failures(results: Sequence[TestResult]) -> None:
    for result in results:
        if not result.passed:
            _say(f"FAIL {result.path}:{result.line}: {result.name}{': ' if result.why else ''}{result.why}")


def _print_differences(ours: Mapping[str, bool], theirs: Mapping[str, bool]) -> int:
    words = {True: "passes", False: "fails", None: "is not there"}
    differing = [name for name in sorted(ours.keys() | theirs.keys()) if ours.get(name) != theirs.get(name)]
    for name in differing:
        _say(f"DIFFERS {name}: {words[ours.get(name)]} in the embedded engine, {words[theirs.get(name)]} in opa")
    return len(differing)


def _in_opa(opa: str, bundle: Bundle) -> dict[str, bool]:
    """Whether each test passes there. It is given what was read here, so that both run the very same text."""
    with tempfile.TemporaryDirectory(prefix="sandboxctl-policy-") as directory:
        for name, text in (*bundle.modules, *bundle.tests, ("data.json", bundle.data_json)):
            path = Path(directory) / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        try:
            done = subprocess.run(
                [opa, "test", "--format=json", directory],
                stdin=subprocess.DEVNULL,
                capture_output=True,
                timeout=OPA_SECONDS,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            raise Mistake(f"{opa!r} did not end within {OPA_SECONDS} seconds") from error
        except OSError as error:
            raise Mistake(f"cannot start {opa!r}: {error.strerror}") from error
    if done.returncode not in (0, _FAILED_TESTS):
        told = (done.stderr or done.stdout).decode(errors="replace").replace(f"{directory}/", "").strip()
        raise Mistake(f"opa cannot run these tests: {told[:2000]}")
    return dict(_result(item) for item in json.loads(done.stdout) or () if not item.get("skip"))


def _result(item: Mapping[str, object]) -> tuple[str, bool]:
    below = package(f"package {str(item['package']).removeprefix('data.')}")
    return ".".join((*below, str(item["name"]))), not (item.get("fail") or item.get("error"))


def _say(line: str) -> None:
    print(printable(line))  # noqa: T201
