"""Table "API and policy", A01, A07-A09 and A13 for the surfaces there are: hostile bytes, profiles and local users.

Speaks gRPC with raw bytes where a client would refuse to; the answer must be a status, never a crash or a hang.
"""

import json
import shutil
import socket
import subprocess
import sys
import tempfile
from itertools import pairwise
from pathlib import Path

import grpc
import pytest

from sandboxd.client import Client, InvalidRequest, SandboxdError
from sandboxd.rpc.v1 import sandbox_pb2
from tests import proc
from tests.daemon import CHECKOUT, Mode, RunningDaemon, start_daemon
from tests.skips import need_root

MIB = 1 << 20
REFUSED = {grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.RESOURCE_EXHAUSTED}
# What the C core answers itself to a message that protobuf cannot parse.
UNPARSED = REFUSED | {grpc.StatusCode.INTERNAL}


def _raw(daemon: RunningDaemon, method: str, message: bytes) -> grpc.StatusCode:
    """The status that the daemon answers to these bytes."""
    options = [("grpc.max_send_message_length", -1), ("grpc.default_authority", "localhost")]
    with grpc.insecure_channel(daemon.address, options=options) as channel:
        call = channel.unary_unary(f"/sandboxd.v1.{method}", lambda data: data, lambda data: data)
        try:
            call(message, timeout=60)
        except grpc.RpcError as error:
            return error.code()
    return grpc.StatusCode.OK


def _alive(daemon: RunningDaemon, client: Client) -> None:
    assert daemon.process.poll() is None
    assert client.run(["/bin/true"]).exit_code == 0


VALID = sandbox_pb2.ExecuteRequest(argv=sandbox_pb2.ArgvProgram(argv=["/bin/true"])).SerializeToString()
MESSAGES = {
    "random": (b"\xff" * 64, UNPARSED),
    "truncated": (VALID[:-3], UNPARSED),
    "wrong-wire-type": (b"\x08\x01" + VALID, UNPARSED),
    "unknown-field": (VALID + b"\xba\x3e\x05extra", REFUSED),
    "invalid-utf8": (VALID + b"\x1a\x02\xff\xfe", UNPARSED),
    "field-number-0": (VALID + b"\x00\x00", UNPARSED),
    "length-beyond-end": (b"\x0a\xff\xff\xff\xff\x07", UNPARSED),
    "negative-length": (b"\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", UNPARSED),
    "group-100-deep": (b"\xc3\x3e" * 100 + b"\xc4\x3e" * 100 + VALID, UNPARSED),
    "empty": (b"", REFUSED),
}


@pytest.mark.parametrize(("message", "answers"), MESSAGES.values(), ids=MESSAGES.keys())
@pytest.mark.parametrize("method", ["SandboxService/Run", "SandboxService/Execute"])
def test_a01_malformed_message_is_refused(
    method: str, message: bytes, answers: set[grpc.StatusCode], daemon: RunningDaemon, client: Client
) -> None:
    assert _raw(daemon, method, message) in answers
    _alive(daemon, client)


@pytest.mark.parametrize("mebibytes", [4, 64])
def test_a01_oversized_message_is_refused_with_the_daemon_flat(
    mebibytes: int, daemon: RunningDaemon, client: Client
) -> None:
    pid = proc.daemon_pid(daemon.process.pid)
    before = proc.resident_bytes(pid)
    message = sandbox_pb2.ExecuteRequest(stdin=bytes(mebibytes * MIB + 1)).SerializeToString()
    assert _raw(daemon, "SandboxService/Run", message) in REFUSED
    assert proc.resident_bytes(pid) - before < 64 * MIB
    _alive(daemon, client)


@pytest.mark.parametrize("entries", [250_000, 1_000_000])  # what fits into a message, and what does not
def test_a01_many_map_entries_are_refused_with_the_daemon_flat(
    entries: int, daemon: RunningDaemon, client: Client
) -> None:
    pid = proc.daemon_pid(daemon.process.pid)
    before = proc.resident_bytes(pid)
    message = VALID + b"".join(b"\x5a\x0a\x0a\x06%06x\x12\x00" % number for number in range(entries))
    assert (len(message) < 4 * MIB) == (entries == 250_000)
    assert _raw(daemon, "SandboxService/Run", message) in REFUSED
    assert proc.resident_bytes(pid) - before < 96 * MIB
    _alive(daemon, client)


@pytest.mark.parametrize(
    "change",
    [
        {"sandbox_id": "x"},
        {"context_id": "x"},
        {"idempotency_key": "x"},
        {"detach": True},
        {"workspace_mode": "persistent"},
        {"isolation": 99},
        {"profile": "../default"},
        {"profile": "no-such"},
        {"network": "host"},
        {"cwd": "/../etc"},
        {"cwd": "a\0b"},
        {"traceparent": "x\r\ny"},
    ],
    ids=str,
)
def test_a01_field_with_a_wrong_value_is_refused(change: dict[str, str], daemon: RunningDaemon, client: Client) -> None:
    request = sandbox_pb2.ExecuteRequest(argv=sandbox_pb2.ArgvProgram(argv=["/bin/true"]), **change)  # type: ignore[arg-type]
    # What is reserved for a later version is a verb that is lacking: FAILED_PRECONDITION.
    refused = REFUSED | {grpc.StatusCode.FAILED_PRECONDITION}
    assert _raw(daemon, "SandboxService/Run", request.SerializeToString()) in refused
    _alive(daemon, client)


def test_a01_garbage_on_the_socket_ends_that_connection_alone(daemon: RunningDaemon, client: Client) -> None:
    for data in (b"\0" * 4096, b"GET / HTTP/1.1\r\n\r\n", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\xff" * 65536):
        with socket.socket(socket.AF_UNIX) as sock:
            sock.connect(daemon.address.removeprefix("unix:"))
            sock.sendall(data)
    _alive(daemon, client)


def test_a01_500_silent_connections_do_not_stop_the_others(daemon: RunningDaemon, client: Client) -> None:
    held = []
    try:
        for _ in range(500):
            sock = socket.socket(socket.AF_UNIX)
            held.append(sock)
            sock.setblocking(False)
            try:
                sock.connect(daemon.address.removeprefix("unix:"))
            except BlockingIOError:
                break
        _alive(daemon, client)
    finally:
        for sock in held:
            sock.close()


HEAD = """apiVersion: sandboxd.io/v1
kind: SandboxProfile
metadata: {name: evil}
spec:
  extends: default
  description: tried
"""
WHY = "why: 'a reason that is long enough'"
PROFILES = {
    "bind-root": f"  root: {{binds: [{{source: /, {WHY}}}]}}\n",
    "bind-proc": f"  root: {{binds: [{{source: /proc, {WHY}}}]}}\n",
    "bind-run": f"  root: {{binds: [{{source: /run, {WHY}}}]}}\n",
    "bind-sys": f"  root: {{binds: [{{source: /sys, {WHY}}}]}}\n",
    "bind-dev": f"  root: {{binds: [{{source: /dev, {WHY}}}]}}\n",
    "bind-etc": f"  root: {{binds: [{{source: /etc, {WHY}}}]}}\n",
    "bind-dots": f"  root: {{binds: [{{source: /usr/../etc, {WHY}}}]}}\n",
    "bind-over-proc": f"  root: {{binds: [{{source: /usr/share, target: /proc/x, {WHY}}}]}}\n",
    "bind-over-workspace": f"  root: {{binds: [{{source: /usr/share, target: /workspace, {WHY}}}]}}\n",
    "docker-socket": f"  root: {{binds: [{{source: /run/docker.sock, {WHY}}}]}}\n",
    "image-root": f"  root: {{image: {{path: /, {WHY}}}}}\n",
    "package-root": f"  packages: [{{path: /, {WHY}}}]\n",
    "package-home": f"  packages: [{{path: /root, {WHY}}}]\n",
    "allow-ptrace": f"  seccomp: {{allow: [{{names: [ptrace], {WHY}}}]}}\n",
    "allow-mount": f"  seccomp: {{allow: [{{names: [mount], {WHY}}}]}}\n",
    "allow-seccomp": f"  seccomp: {{allow: [{{names: [seccomp], {WHY}}}]}}\n",
    "allow-unknown-call": f"  seccomp: {{allow: [{{names: [no_such_call], {WHY}}}]}}\n",
    "allow-default": "  seccomp: {default: allow}\n",
    "no-reason": "  seccomp: {allow: [{names: [getpid]}]}\n",
    "unknown-field": "  privileged: true\n",
    "uid-0": "  uid: 0\n",
    "network-host": "  network: host\n",
    "writable-bind": f"  root: {{binds: [{{source: /usr/share, writable: true, {WHY}}}]}}\n",
    "negative-limit": "  limits: {memory_bytes: -1}\n",
    "infinite-limit": "  limits: {wall_seconds: .inf}\n",
    "duplicate-key": "  network: none\n  network: loopback\n",
}
WHOLE = {
    "self-extends": HEAD.replace("extends: default", "extends: evil"),
    "bad-name": HEAD.replace("name: evil", "name: ../../etc"),
    "anchors-bomb": "a: &a [x,x,x,x,x,x,x,x,x]\n"
    + "".join(f"{name}: &{name} [{','.join([f'*{before}'] * 9)}]\n" for before, name in pairwise("abcdefghij")),
    "python-tag": HEAD + "  network: !!python/object/apply:os.system ['touch /tmp/sandboxd-owned']\n",
    "deep": "[" * 100_000,
    "binary": "\x00\x01\x02",
    "two-documents": HEAD + "---\n" + HEAD,
    "empty": "",
}


@pytest.mark.parametrize(
    "text",
    [*(HEAD + text for text in PROFILES.values()), *WHOLE.values()],
    ids=[*PROFILES, *(f"whole-{n}" for n in WHOLE)],
)
def test_a07_hostile_profile_is_refused_with_the_reason(text: str, tmp_path: Path) -> None:
    (tmp_path / "evil.yaml").write_text(text)
    run = _compile(tmp_path)
    assert run.returncode == 1, run.stdout[:500]
    assert b"evil" in run.stderr
    assert b"Traceback" not in run.stderr
    assert run.stdout == b""
    assert not Path("/tmp/sandboxd-owned").exists()


def test_a07_control_an_honest_profile_is_compiled(tmp_path: Path) -> None:
    (tmp_path / "fine.yaml").write_text(HEAD.replace("evil", "fine") + "  network: none\n")
    run = _compile(tmp_path)
    assert run.returncode == 0, run.stderr
    assert "fine" in {template["name"] for template in json.loads(run.stdout)["templates"]}


def _compile(directory: Path) -> subprocess.CompletedProcess[bytes]:
    """The spawner's own child, which turns profiles into templates."""
    argv = [sys.executable, "-m", "sandboxd.profile.compile", str(CHECKOUT / "profiles"), str(directory)]
    return subprocess.run(argv, cwd=CHECKOUT, capture_output=True, check=False, timeout=120)


def test_a07_daemon_does_not_start_with_a_hostile_profile(tmp_path: Path) -> None:
    need_root()
    tmp_path.chmod(0o755)
    (tmp_path / "evil.yaml").write_text(HEAD + PROFILES["bind-root"])
    with (
        pytest.raises(AssertionError, match="evil"),
        start_daemon(Mode.ROOT, f"profiles: {{paths: [{CHECKOUT / 'profiles'}, {tmp_path}]}}\n"),
    ):
        pytest.fail("it started")


def test_a08_edited_profile_counts_after_a_reload_only() -> None:
    """And a broken edit does not count at all."""
    need_root()
    with tempfile.TemporaryDirectory(prefix="sandboxd-test-", dir="/var/tmp") as name:
        directory = Path(name)
        directory.chmod(0o755)
        for source in (CHECKOUT / "profiles").glob("*.yaml"):
            shutil.copy(source, directory)
        profile = directory / "python.yaml"
        honest = profile.read_text()
        with start_daemon(Mode.ROOT, f"profiles: {{paths: [{directory}]}}\n") as daemon, daemon.client() as client:
            first = client.profile("python").digest
            profile.write_text(honest.replace("limits:", "limits:\n    tmp_inodes: 77", 1))
            assert client.profile("python").digest == first
            assert client.run(["/bin/true"], profile="python").exit_code == 0
            daemon.reload()
            proc.until(lambda: client.profile("python").digest != first, "the reload took the new one")
            second = client.profile("python").digest
            assert client.run(["/bin/true"], profile="python").exit_code == 0
            profile.write_text(honest + "  privileged: true\n")
            daemon.reload()
            proc.until(lambda: "privileged" in daemon.log.read_text(), "the refusal is in the log")
            assert client.profile("python").digest == second
            assert client.run(["/bin/true"], profile="python").exit_code == 0


def _as_stranger(script: str, *arguments: str) -> subprocess.CompletedProcess[bytes]:
    """Run as an unprivileged user of the host who has nothing to do with the daemon."""
    stranger = ["setpriv", "--reuid=64999", "--regid=64999", "--clear-groups", "/usr/bin/python3", "-c", script]
    return subprocess.run([*stranger, *arguments], capture_output=True, check=False, timeout=60, cwd="/")


CONNECT = "import socket, sys; socket.socket(socket.AF_UNIX).connect(sys.argv[1]); print('connected')"
READ = "import os, sys; p = sys.argv[1]; print(os.listdir(p) if os.path.isdir(p) else open(p, 'rb').read(9))"


def test_a13_stranger_cannot_connect(daemon: RunningDaemon) -> None:
    need_root()
    assert b"PermissionError" in _as_stranger(CONNECT, str(daemon.socket)).stderr
    assert daemon.socket.stat().st_mode & 0o077 == 0


def test_a13_stranger_who_reaches_the_socket_is_refused_by_its_uid(daemon_root: RunningDaemon) -> None:
    """The directory's mode off, the peer's credentials alone must hold: second layer."""
    path = daemon_root.socket
    opened = [(p, p.stat().st_mode & 0o777) for p in (path.parent.parent, path.parent, path)]
    call = (
        "import grpc, sys\n"
        "channel = grpc.insecure_channel('unix:' + sys.argv[1], options=[('grpc.default_authority', 'localhost')])\n"
        "call = channel.unary_unary('/sandboxd.v1.NodeService/GetCapabilities', lambda d: d, lambda d: d)\n"
        "try: call(b'', timeout=20); print('answered')\n"
        "except grpc.RpcError as error: print(error.code().name)\n"
    )
    try:
        for p, mode in opened:
            p.chmod(mode | 0o777 if p == path else mode | 0o011)
        stranger = [
            "setpriv",
            "--reuid=64999",
            "--regid=64999",
            "--clear-groups",
            sys.executable,
            "-c",
            call,
            str(path),
        ]
        answer = subprocess.run(stranger, capture_output=True, check=False, timeout=60, cwd="/")
        assert answer.stdout.strip() in (b"PERMISSION_DENIED", b"UNAVAILABLE"), answer
    finally:
        for p, mode in opened:
            p.chmod(mode)
    with daemon_root.client() as client:
        assert client.run(["/bin/true"]).exit_code == 0


def test_a13_stranger_reads_no_state(daemon: RunningDaemon) -> None:
    need_root()
    pid = proc.daemon_pid(daemon.process.pid)
    paths = [daemon.state_dir, daemon.state_dir / "journal", daemon.state_dir / "keys" / "audit.pem", daemon.config]
    for name in ("environ", "mem", "maps", "fd", "cwd/", "root/etc"):
        paths += [Path(f"/proc/{pid}/{name}"), Path(f"/proc/{daemon.process.pid}/{name}")]
    for path in paths:
        answer = _as_stranger(READ, str(path))
        assert b"PermissionError" in answer.stderr, (path, answer)


def test_a13_nothing_of_the_daemon_is_in_tmp(daemon: RunningDaemon) -> None:
    need_root()
    pids = {p.pid for p in proc.descendants(daemon.process.pid)} | {daemon.process.pid}
    own = daemon.config.parent.parent
    for pid in pids:
        for entry in Path(f"/proc/{pid}/fd").iterdir():
            try:
                target = str(entry.readlink())
            except OSError:
                continue
            assert not target.startswith(("/tmp/", "/var/tmp/")) or Path(target).is_relative_to(own), target


def test_error_of_a_refused_request_names_the_value(client: Client) -> None:
    with pytest.raises(InvalidRequest) as caught:
        client.run(["/bin/true"], profile="no-such-profile")
    assert "no-such-profile" in str(caught.value)
    assert "default" in str(caught.value), "it says which there are"


def test_control_characters_of_a_caller_do_not_come_back_raw(client: Client) -> None:
    with pytest.raises(SandboxdError) as caught:
        client.run(["/bin/true"], profile="\x1b[2J\nfake")
    assert "\x1b" not in str(caught.value)
    assert "\n" not in str(caught.value)
