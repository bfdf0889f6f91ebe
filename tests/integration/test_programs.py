"""Real programs under the profiles made for them: numpy from pip, git, gcc, node, bash pipelines."""

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from sandboxd.client import Client, EndReason, Result
from tests.daemon import Mode, start_daemon
from tests.limited import run_limited
from tests.skips import Lacks, because, need_program

NUMPY_PROFILE = """
apiVersion: sandboxd.io/v1
kind: SandboxProfile
metadata:
  name: numpy
  labels: {{sandboxd.io/reviewed: "true"}}
spec:
  description: numpy beside the standard library
  extends: python
  packages:
    - {{path: {packages}, why: "numpy as pip installed it for this test"}}
  env:
    fixed: {{PYTHONPATH: {packages}}}
"""


def _fine(result: Result) -> Result:
    assert (result.end_reason, result.exit_code) == (EndReason.EXITED, 0), (result, result.stderr.decode())
    return result


@pytest.fixture(scope="session")
def numpy_packages() -> Iterator[Path]:
    """numpy for the sandbox's interpreter, outside /root and every home. Of this run alone: others may run beside."""
    with tempfile.TemporaryDirectory(prefix="sandboxd-numpy-", dir="/var/tmp") as name:
        directory = Path(name)
        directory.chmod(0o755)
        pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--target", name]
        done = subprocess.run([*pip, "numpy"], capture_output=True, check=False)
        if done.returncode != 0:
            pytest.skip(because(Lacks.PROGRAM, f"numpy cannot be installed: {done.stderr.decode()[-300:]}"))
        yield directory


SHIPPED = ("build", "default", "node", "python", "shell", "strict")


@pytest.mark.parametrize("profile", SHIPPED)
def test_plan_of_any_size_gets_past_the_filter_that_is_there_before_it(profile: str, client: Client) -> None:
    """A large one comes in a memory file, which takes other system calls to read than a packet."""
    letters = "abcdefgh"
    argv = ["/usr/bin/printf", "%.1s", *(letter * 100_000 for letter in letters)]
    result = run_limited(client, argv, {}, "limit.cpus", profile=profile)
    assert (result.exit_code, result.stdout, result.stderr) == (0, letters.encode(), b"")


@pytest.mark.parametrize("profile", SHIPPED)
def test_program_that_is_not_there_is_told_under_every_filter(profile: str, client: Client) -> None:
    result = run_limited(client, ["/bin/no-such"], {}, "limit.cpus", profile=profile)
    assert result.exit_code == 127
    assert result.stderr == b"sandboxd: cannot run '/bin/no-such': No such file or directory\n"


def test_every_shipped_profile_is_tried_above(client: Client) -> None:
    assert tuple(sorted(profile.name for profile in client.profiles())) == SHIPPED


def test_wall_time_of_a_short_program_is_told_finer_than_in_milliseconds(client: Client) -> None:
    """The event loop's own clock counts in them."""
    times = [client.run(["/bin/true"]).usage.wall_seconds for _ in range(5)]
    assert any(abs(seconds * 1000 - round(seconds * 1000)) > 1e-6 for seconds in times), times


def test_streams_can_be_opened_by_their_names(client: Client) -> None:
    script = "read a </dev/stdin; echo $a >/dev/stdout; echo err >/dev/stderr; cat /dev/stdin | tee /dev/fd/2"
    result = _fine(client.run(["/bin/bash", "-c", script], profile="shell", stdin=b"first\nrest\n"))
    assert sorted(result.stdout.split()) == [b"first", b"rest"]
    assert sorted(result.stderr.split()) == [b"err", b"rest"]


@pytest.mark.parametrize("mode", [Mode.ROOT, Mode.ROOTLESS], ids=str)
def test_numpy_from_pip_computes(mode: Mode, numpy_packages: Path, tmp_path: Path) -> None:
    shipped = Path(__file__).resolve().parents[2] / "profiles"
    profiles = numpy_packages / "profiles"
    profiles.mkdir(exist_ok=True)
    (profiles / "numpy.yaml").write_text(NUMPY_PROFILE.format(packages=numpy_packages))
    source = """
import numpy
rng = numpy.random.default_rng(7)
a = rng.random((200, 200))
print(numpy.allclose(a @ numpy.linalg.inv(a), numpy.eye(200)), numpy.fft.fft(a).shape)
"""
    with start_daemon(mode, f"profiles: {{paths: [{shipped}, {profiles}]}}\n") as daemon, daemon.client() as client:
        result = _fine(client.run_code(source, profile="numpy"))
    assert result.stdout == b"True (200, 200)\n"


def test_git_commits_and_clones(client: Client) -> None:
    need_program("git", "git")
    script = """
set -e
git init -q repo && cd repo
git config user.email a@b && git config user.name a
for i in 1 2 3; do echo $i > f$i; git add . && git commit -qm "commit $i"; done
cd .. && git clone -q repo copy && git -C copy log --oneline | wc -l
git -C repo gc -q && git -C repo fsck
"""
    assert _fine(client.run(["/bin/bash", "-c", script], profile="shell")).stdout.strip() == b"3"


def test_gcc_builds_and_the_program_runs(client: Client) -> None:
    need_program("gcc", "gcc")
    source = b'#include <stdio.h>\n#include <math.h>\nint main(void) { printf("%.3f\\n", sqrt(2)); return 0; }\n'
    result = client.run(
        ["/bin/sh", "-c", "gcc -O2 -o sqrt sqrt.c -lm && ./sqrt"], files={"sqrt.c": source}, profile="build"
    )
    assert _fine(result).stdout == b"1.414\n"


def test_build_profile_says_that_its_workspace_executes(client: Client) -> None:
    enforcement = _fine(client.run(["/bin/true"], profile="build")).enforcement
    rows = {row.guarantee: row for row in enforcement.rows}
    assert str(rows["filesystem.noexec"].state) != "enforced"
    assert any("workspace" in warning for warning in enforcement.warnings)


def test_node_runs_timers_files_and_workers(client: Client) -> None:
    need_program("node", "nodejs")
    source = """
const { Worker, isMainThread, parentPort } = require('worker_threads');
if (isMainThread) {
  const worker = new Worker(__filename);
  worker.on('message', (sum) => { console.log(JSON.stringify({ sum })); });
} else {
  let sum = 0; for (let i = 0; i < 1e6; i++) sum += i;
  setTimeout(() => parentPort.postMessage(sum), 10);
}
"""
    result = _fine(client.run_code(source, language="node", profile="node"))
    assert json.loads(result.stdout) == {"sum": 499999500000}


def test_bash_pipeline(client: Client) -> None:
    script = (
        "seq 1 1000 | awk '{ s += $1 } END { print s }' | tee out | sed 's/^/sum /' && sort -n <(seq 5 -1 1) | head -1"
    )
    result = _fine(client.run(["/bin/bash", "-c", script], profile="shell", collect=["out"]))
    assert result.stdout == b"sum 500500\n1\n"
    assert [(file.path, file.content) for file in result.files] == [("out", b"500500\n")]


STANDARD_LIBRARY = {
    "sqlite": "import sqlite3; c = sqlite3.connect('x.db'); c.execute('create table t (a)'); c.commit(); print('ok')",
    "subprocess": "import subprocess; print(subprocess.check_output(['echo', 'ok'], text=True).strip())",
    "multiprocessing": """
import multiprocessing
if __name__ == '__main__':
    with multiprocessing.Pool(2) as pool:
        print('ok' if pool.map(abs, [-1, 2]) == [1, 2] else '')
""",
    "asyncio": """
import asyncio
async def main():
    process = await asyncio.create_subprocess_exec('echo', 'ok', stdout=asyncio.subprocess.PIPE)
    print((await process.communicate())[0].decode().strip())
asyncio.run(main())
""",
    "tempfile": "import tempfile\nwith tempfile.NamedTemporaryFile() as f: f.write(b'x'); print('ok')",
    "modules": "import ssl, hashlib, zlib, lzma, json, decimal, ctypes; ssl.create_default_context(); print('ok')",
    "threads": """
from concurrent.futures import ThreadPoolExecutor
with ThreadPoolExecutor(4) as pool:
    print('ok' if sum(pool.map(int, '1234')) == 10 else '')
""",
}


@pytest.mark.parametrize("source", STANDARD_LIBRARY.values(), ids=STANDARD_LIBRARY.keys())
def test_python_standard_library_works(source: str, client: Client) -> None:
    assert _fine(client.run_code(source, profile="python")).stdout == b"ok\n"
