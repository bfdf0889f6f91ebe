"""What policy has redacted, on a real node: nothing of it leaves the daemon, however the program prints it."""

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from sandboxd.client import Chunk, Client, Redaction, Result, Stream, Unenforceable
from tests.daemon import Mode, RunningDaemon, start_daemon
from tests.skips import need_root

SECONDS = 120.0
ROOT = Path(__file__).resolve().parents[2]
RULES = """package sandboxd

import rego.v1

demands(names, label) := {"code": label, "message": "redacted", "redact": names} if {
	input.action.type == "execution.start"
	input.action.labels[label] == "yes"
}

tighten contains demands(["github-token", "private-key"], "tokens")

tighten contains demands(["ours", "github-token"], "ours")

tighten contains demands(["github-token", "theirs"], "unknown")
"""
SETTINGS = """policy: {{paths: [{policies}], deadline_seconds: 30}}
redaction:
  patterns:
    ours: {{pattern: 'corp_[a-z0-9]{{8}}', max_bytes: 13}}
"""
TOKEN = "gh" + "p_" + "0123456789abcdefghijABCDEFGHIJ012345"
KEY = "-----BEGIN " + "PRIVATE KEY-----\n" + "c2VjcmV0\n" * 400 + "-----END " + "PRIVATE KEY-----\n"
OURS = "corp_" + "a1b2c3d4"
# Byte by byte, so that many a read of the daemon's holds a single one.
PROGRAM = """import os, sys
data = open("in.txt", "rb").read()
for byte in data:
    os.write(1, bytes((byte,)))
    os.write(2, bytes((byte,)))
os.makedirs("out")
open("out/a.txt", "wb").write(data)
open("out/" + data.split()[1].decode(), "wb").write(b"named")
"""
TEXT = f"before {TOKEN} between\n{KEY}{OURS} behind".encode()


@pytest.fixture(scope="module")
def daemon() -> Iterator[RunningDaemon]:
    need_root()
    directory = Path(tempfile.mkdtemp(prefix="sandboxd-policy-"))
    try:
        directory.chmod(0o755)
        shutil.copy(ROOT / "policies" / "sandboxd.rego", directory)
        (directory / "rules.rego").write_text(RULES)
        for path in directory.iterdir():
            path.chmod(0o644)
        with start_daemon(Mode.ROOT, SETTINGS.format(policies=directory)) as running:
            yield running
    finally:
        shutil.rmtree(directory)


@pytest.fixture
def client(daemon: RunningDaemon) -> Iterator[Client]:
    with daemon.client() as made:
        yield made


def run(client: Client, *labels: str) -> Result:
    return client.run_code(
        PROGRAM,
        profile="python",
        files={"in.txt": TEXT},
        collect=["out/*"],
        labels=dict.fromkeys(labels, "yes"),
    )


def expected(*, ours: bool) -> bytes:
    corp = b"[redacted:ours]" if ours else OURS.encode()
    return b"before [redacted:github-token] between\n[redacted:private-key]\n" + corp + b" behind"


def sandboxctl(daemon: RunningDaemon, *arguments: str) -> subprocess.CompletedProcess[bytes]:
    script = "from sandboxd.cli import sandboxctl_main; sandboxctl_main()"
    return subprocess.run(
        [sys.executable, "-c", script, *arguments],
        env={"PATH": os.environ["PATH"], "SANDBOXD_ADDRESS": daemon.address},
        capture_output=True,
        timeout=SECONDS,
    )


@pytest.mark.root
def test_without_a_demand_everything_comes_as_it_is(client: Client) -> None:
    result = run(client)
    assert (result.stdout, result.stderr, result.redactions) == (TEXT, TEXT, ())
    assert sorted(file.path for file in result.files) == ["out/a.txt", f"out/{TOKEN}"]


@pytest.mark.root
@pytest.mark.parametrize(("labels", "ours"), [(("tokens",), False), (("tokens", "ours"), True)])
def test_streams_files_and_what_is_kept_hold_no_match(
    daemon: RunningDaemon, client: Client, labels: tuple[str, ...], *, ours: bool
) -> None:
    result = run(client, *labels)
    rest = expected(ours=ours)
    assert (result.stdout, result.stderr) == (rest, rest)
    assert [(file.path, file.content) for file in result.files] == [("out/a.txt", rest)]
    (skipped,) = result.files_skipped
    assert skipped.path == "out/[redacted:github-token]"
    counted = [Redaction("github-token", 4), *([Redaction("ours", 3)] if ours else []), Redaction("private-key", 3)]
    assert list(result.redactions) == counted
    assert (result.usage.stdout_bytes, result.stdout_truncated) == (len(TEXT), False)
    logs = client.logs(result.execution_id)
    assert (logs.stdout, logs.stderr) == (rest, rest)
    kept = client.execution(result.execution_id).result
    assert kept is not None and kept.redactions == result.redactions
    ended = daemon.records_of(result.execution_id)[-1]
    assert isinstance(ended["fields"], dict)
    assert ended["fields"]["redactions"] == [[one.pattern, one.matches] for one in counted]


@pytest.mark.root
def test_offsets_of_chunks_are_those_of_the_redacted_streams(client: Client) -> None:
    program = f"import os\nfor byte in {TEXT!r}: os.write(1, bytes((byte,)))\nos.write(2, b'gh' + b'p_')"
    got = {Stream.STDOUT: b"", Stream.STDERR: b""}
    for event in client.execute(["/usr/bin/python3", "-c", program], labels={"tokens": "yes"}):
        if isinstance(event, Chunk):
            assert event.offset == len(got[event.stream])
            got[event.stream] += event.data
    assert got == {Stream.STDOUT: expected(ours=False), Stream.STDERR: b"ghp_"}


@pytest.mark.root
def test_line_is_passed_on_while_its_program_waits(client: Client) -> None:
    program = "import sys, time\nprint('ready', flush=True)\nif sys.stdin.read() == '': time.sleep(600)"
    events = client.execute(["/usr/bin/python3", "-c", program], labels={"tokens": "yes", "ours": "yes"})
    chunk = next(event for event in events if isinstance(event, Chunk))
    events.close()
    assert chunk.data == b"ready\n"


@pytest.mark.root
def test_cap_that_cuts_a_secret_leaves_none_of_it(client: Client) -> None:
    program = f"print('x' * 4086 + {TOKEN!r})"
    result = client.run_code(program, profile="python", limits={"stdout_bytes": 4096}, labels={"tokens": "yes"})
    assert (result.stdout, result.stdout_truncated) == (b"x" * 4086, True)


@pytest.mark.root
def test_unknown_name_is_refused_before_anything_runs(daemon: RunningDaemon, client: Client) -> None:
    with pytest.raises(Unenforceable) as caught:
        run(client, "unknown")
    assert caught.value.reason == "obligation_unsupported"
    assert "'theirs'" in caught.value.message
    (refused,) = (record for record in daemon.journal() if record["rule"] == "execution.refused")
    assert isinstance(refused["fields"], dict) and isinstance(refused["ids"], dict)
    assert refused["fields"]["reason"] == "obligation_unsupported"
    rules = [record["rule"] for record in daemon.records_of(refused["ids"]["execution_id"])]
    assert rules[-1] == "execution.refused" and "execution.started" not in rules


@pytest.mark.root
def test_what_was_decided_on_is_stored_without_it_and_cannot_be_decided_again(
    daemon: RunningDaemon, client: Client
) -> None:
    result = client.run(["/bin/echo", TOKEN], labels={"tokens": "yes"})
    assert result.stdout == b"[redacted:github-token]\n"
    told = re.fullmatch(
        r"/bin/echo \[redacted:(github-token:[0-9a-f]{16})\]", client.execution(result.execution_id).command
    )
    assert told is not None
    decided = next(
        fields
        for record in daemon.records_of(result.execution_id)
        if isinstance(fields := record["fields"], dict) and fields.get("action") == "execution.start"
    )
    script = "from sandboxd.cli import sandboxd_main; sandboxd_main()"
    shown = subprocess.run(
        [sys.executable, "-c", script, "audit", "show", decided["input_sha256"], "--config", str(daemon.config)],
        check=True,
        capture_output=True,
        timeout=SECONDS,
    )
    argv = json.loads(shown.stdout)["action"]["argv"]
    assert argv == ["/bin/echo", {"sandboxd.io/redacted": told[1]}]


@pytest.mark.root
def test_sandboxctl_shows_what_was_taken_out(daemon: RunningDaemon) -> None:
    echo = ("--label", "tokens=yes", "--", "/bin/echo", TOKEN)
    told = json.loads(sandboxctl(daemon, "run", "--json", *echo).stdout)
    assert told["stdout"] == "[redacted:github-token]\n"
    assert told["redactions"] == [{"pattern": "github-token", "matches": 1}]
    explained = sandboxctl(daemon, "run", "--explain", *echo)
    assert explained.stdout == b"[redacted:github-token]\n"
    assert b"github-token: 1" in explained.stderr
    assert sandboxctl(daemon, "logs", told["execution_id"]).stdout == b"[redacted:github-token]\n"
