"""A policy's way into force on a real node, by the recipe of docs/bundles.md: tried, replayed, shadowed, reloaded."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from sandboxd.client import Client, PolicyDenied
from tests.bundles import archive, manifest, public_file, signed
from tests.daemon import Mode, RunningDaemon, start_daemon
from tests.skips import need_root

SECONDS = 120.0
ALLOWING = b"""package sandboxd

import rego.v1

decision := {"verdict": "deny", "reasons": [reason | some reason in deny]} if count(deny) > 0

decision := {"verdict": "allow"} if count(deny) == 0

deny contains {"code": "never", "message": "this is never asked"} if input.action.type == "never"
"""
NO_CURL = b"""
deny contains {"code": "no_curl", "message": "curl is not allowed here"} if input.action.argv[0] == "/usr/bin/curl"
"""


@pytest.fixture
def place() -> Iterator[Path]:
    """Where the daemon's user can read, below directories that others can pass."""
    need_root()
    directory = Path(tempfile.mkdtemp(prefix="sandboxd-policy-"))
    directory.chmod(0o755)
    yield directory
    shutil.rmtree(directory)


def release(path: Path, version: int, policy: bytes) -> None:
    """In place with one rename."""
    new = path.with_suffix(".new")
    new.write_bytes(archive(signed({".manifest": manifest(version), "sandboxd.rego": policy})))
    new.chmod(0o644)
    new.rename(path)


def sandboxctl(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    script = "from sandboxd.cli import sandboxctl_main; sandboxctl_main()"
    return subprocess.run(
        [sys.executable, "-c", script, *map(str, arguments)],
        env={"PATH": os.environ["PATH"]},
        capture_output=True,
        text=True,
        timeout=SECONDS,
    )


def until(what: str, condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < deadline, f"{what} does not come"
        time.sleep(0.05)


def on_record(daemon: RunningDaemon, rule: str) -> list[dict[str, object]]:
    return [record for record in daemon.journal() if record["rule"] == rule]


def denied(client: Client) -> bool:
    try:
        client.run(["/usr/bin/curl"])
    except PolicyDenied as error:
        return error.reason == "no_curl"
    return False


@pytest.mark.root
def test_policy_is_tried_replayed_shadowed_and_then_reloaded_and_never_goes_back(place: Path) -> None:
    now, coming, key = place / "policy.tar.gz", place / "next.tar.gz", public_file(place)
    key.chmod(0o644)
    release(now, 1, ALLOWING)
    release(coming, 2, ALLOWING + NO_CURL)
    settings = (
        f"policy: {{paths: [{now}], verification_key: {key}, shadow: {{paths: [{coming}]}}, deadline_seconds: 30}}\n"
    )
    with start_daemon(Mode.ROOT, settings) as daemon, daemon.client() as client:
        assert not denied(client)
        until("the difference", lambda: bool(on_record(daemon, "policy.shadow_differed")))
        (differed,) = on_record(daemon, "policy.shadow_differed")
        fields = differed["fields"]
        assert isinstance(fields, dict)
        assert (fields["verdict"], fields["shadow_verdict"], fields["shadow_revision"]) == ("allow", "deny", "r2")
        again = sandboxctl(
            "policy", "replay", "--bundle", coming, "--state-dir", daemon.state_dir, "--verification-key", key, "--json"
        )
        assert again.returncode == 1, again.stderr
        (change,) = json.loads(again.stdout)["changes"]
        assert (change["then"], change["now"], change["now_reason_codes"]) == ("allow", "deny", ["no_curl"])
        assert change["input_sha256"] == fields["input_sha256"]

        release(now, 2, ALLOWING + NO_CURL)
        daemon.reload()
        until("the reload", lambda: client.policy().revision == "r2")
        assert denied(client)
        assert [record["fields"] for record in on_record(daemon, "policy.reloaded")] == [
            {"engine": "rego", "former_revision": "r1", "version": 2}
        ]

        release(now, 1, ALLOWING)
        daemon.reload()
        until("the refusal", lambda: bool(client.policy().reload_error))
        policy = client.policy()
        assert (policy.revision, policy.version) == ("r2", 2)
        assert "is release 1, and 2 was in force here already" in policy.reload_error
        assert denied(client)
        assert len(on_record(daemon, "policy.reload_failed")) == 1
        shown = sandboxctl("policy", "show", "--address", daemon.address)
        assert shown.returncode == 0 and "last reload failed" in shown.stdout and "r2" in shown.stdout

        (place / "action.json").write_bytes(_recorded(daemon, str(fields["input_sha256"])))
        explained = client.check_policy((place / "action.json").read_text())
        assert (explained.verdict, explained.reasons[0][0]) == ("deny", "no_curl")
        checked = sandboxctl(
            "policy", "check", place / "action.json", "--policy", coming, "--verification-key", key, "--json"
        )
        assert checked.returncode == 0, checked.stderr
        assert json.loads(checked.stdout)["rules"] == [
            {"file": path, "line": line, "rule": name} for path, line, name in explained.rules
        ]


def _recorded(daemon: RunningDaemon, digest: str) -> bytes:
    script = "from sandboxd.cli import sandboxd_main; sandboxd_main()"
    command = [sys.executable, "-c", script, "audit", "show", digest, "--config", str(daemon.config)]
    return subprocess.run(command, check=True, capture_output=True, timeout=SECONDS).stdout
