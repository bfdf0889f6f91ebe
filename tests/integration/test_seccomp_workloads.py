"""Real programs under the shipped filters on the running kernel, and nothing but the filters: no namespaces, no daemon.

A program that needs a call which its profile lacks fails here by name.
"""

import os
import subprocess
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import pytest

from sandboxd.profile import seccomp
from sandboxd.profile.load import load_profiles
from sandboxd.profile.seccomp import Memfd
from tests.skips import need_program

ROOT = Path(__file__).resolve().parents[2]
LAUNCHER = Path(__file__).with_name("seccomp_launch.py")
NOBODY = 65534
Run = Callable[..., subprocess.CompletedProcess[str]]


@cache
def filters() -> dict[str, bytes]:
    profiles = load_profiles([ROOT / "profiles"])
    return {profile.name: seccomp.compiled(profile.spec.seccomp, Memfd.SYSCTL) for profile in profiles}


@pytest.fixture
def directory() -> Iterator[Path]:
    """One that an unprivileged user can reach: pytest's own directories are closed to it."""
    with tempfile.TemporaryDirectory(prefix="sandboxd-seccomp-") as name:
        path = Path(name)
        path.chmod(0o755)
        for profile, program in filters().items():
            (path / profile).write_bytes(program)
        yield path


@pytest.fixture
def run(directory: Path) -> Run:
    """Run a program as an unprivileged user in an own directory, under the named profile's filter ("" is none)."""
    work = directory / "work"
    work.mkdir()
    user = None
    if os.geteuid() == 0:
        os.chown(work, NOBODY, NOBODY)
        user = NOBODY
    launcher = directory / "launch.py"
    launcher.write_text(LAUNCHER.read_text())

    def launched(profile: str, *argv: str) -> subprocess.CompletedProcess[str]:
        prefix = ["/usr/bin/python3", str(launcher), str(directory / profile)] if profile else []
        return subprocess.run(
            [*prefix, *argv],
            cwd=work,
            env={"HOME": str(work), "PATH": "/usr/local/bin:/usr/bin:/bin", "LANG": "C.UTF-8", "TMPDIR": str(work)},
            capture_output=True,
            text=True,
            timeout=120,
            user=user,
            group=user,
            extra_groups=None if user is None else (),
            check=False,
        )

    return launched


def succeeded(done: subprocess.CompletedProcess[str]) -> str:
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


PYTHON = {
    "threads": "import threading\nts = [threading.Thread(target=sum, args=(range(999),)) for _ in range(20)]\n"
    "[t.start() for t in ts]; [t.join() for t in ts]",
    "subprocess": "import subprocess\nassert subprocess.run('echo a | cat', shell=True, check=True).returncode == 0",
    "multiprocessing": "import multiprocessing as m\nassert m.Pool(2).map(abs, range(-3, 0)) == [3, 2, 1]",
    "loopback": "import socket\ns = socket.create_server(('127.0.0.1', 0))\n"
    "c = socket.create_connection(s.getsockname())\n"
    "a, _ = s.accept(); c.setsockopt(6, 1, 1); a.sendall(b'x'); assert c.recv(1) == b'x'\n"
    "socket.getaddrinfo('localhost', 80); socket.if_nameindex()",
    "asyncio": "import asyncio\nasync def m():\n p = await asyncio.create_subprocess_exec('echo', 'x', stdout=-1)\n"
    " assert (await p.communicate())[0] == b'x\\n'\nasyncio.run(m())",
    "sqlite3": "import sqlite3\nc = sqlite3.connect('x.db'); c.execute('pragma journal_mode=wal')\n"
    "c.execute('create table t(a)'); c.execute('insert into t values (1)'); c.commit()",
    "tempfile": "import os, shutil, tempfile\n"
    "d = tempfile.mkdtemp(); shutil.copy2('/etc/passwd', d); shutil.rmtree(d)\n"
    "f = tempfile.NamedTemporaryFile(); f.write(b'x'); f.flush(); os.fsync(f.fileno()); os.memfd_create('x')",
    "terminal": "import pty\npty.spawn(['tty'])",
}


@pytest.mark.parametrize("name", PYTHON)
def test_python_works_under_python(run: Run, name: str) -> None:
    succeeded(run("python", "/usr/bin/python3", "-c", PYTHON[name]))


@pytest.mark.parametrize("name", ["threads", "subprocess", "multiprocessing", "asyncio", "terminal"])
def test_python_works_under_strict(run: Run, name: str) -> None:
    succeeded(run("strict", "/usr/bin/python3", "-c", PYTHON[name]))


@pytest.mark.parametrize("name", ["loopback", "sqlite3"])
def test_sockets_and_locks_do_not_work_under_strict(run: Run, name: str) -> None:
    succeeded(run("", "/usr/bin/python3", "-c", PYTHON[name]))
    assert run("strict", "/usr/bin/python3", "-c", PYTHON[name]).returncode == 1


def test_a_virtual_environment_and_a_wheel_install_under_build(run: Run, directory: Path) -> None:
    with zipfile.ZipFile(directory / "hello-1.0-py3-none-any.whl", "w") as wheel:
        wheel.writestr("hello.py", "print('hello from the wheel')\n")
        wheel.writestr("hello-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: hello\nVersion: 1.0\n")
        wheel.writestr("hello-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr("hello-1.0.dist-info/RECORD", "")
    succeeded(run("build", "/usr/bin/python3", "-m", "venv", "v"))
    succeeded(run("build", "v/bin/pip", "install", "--no-index", str(directory / "hello-1.0-py3-none-any.whl")))
    assert succeeded(run("build", "v/bin/python", "-c", "import hello")) == "hello from the wheel\n"


def test_node_reads_files_spawns_and_serves_under_node(run: Run) -> None:
    need_program("node", "nodejs")
    code = (
        "const f = require('fs'), h = require('http'); f.writeFileSync('n', 'x');"
        "require('child_process').execSync('echo hi'); require('os').networkInterfaces();"
        "const {Worker} = require('worker_threads'); new Worker('1', {eval: true});"
        "const s = h.createServer((q, r) => r.end('ok')).listen(0, '127.0.0.1', () =>"
        " h.get({port: s.address().port, host: '127.0.0.1'}, r => { r.resume(); s.close(); console.log('served'); }));"
    )
    assert succeeded(run("node", "node", "-e", code)) == "served\n"


def test_npm_starts_under_node(run: Run) -> None:
    need_program("npm", "npm")
    assert succeeded(run("node", "npm", "--version"))


def test_git_commits_packs_and_clones_under_shell(run: Run) -> None:
    need_program("git", "git")
    commands = (
        "git init -q a && cd a && echo x >f && git add f && git -c user.name=a -c user.email=a@b commit -q -m x"
        " && git gc -q && git clone -q . ../b && git -C ../b log --oneline | wc -l"
    )
    assert succeeded(run("shell", "/bin/bash", "-c", commands)).strip() == "1"


def test_gcc_compiles_and_the_result_runs_under_build(run: Run) -> None:
    need_program("gcc", "gcc")
    commands = "echo 'int main(void){return 7;}' >a.c && gcc -O2 -pthread a.c -o a && { ./a; echo $?; }"
    assert succeeded(run("build", "/bin/bash", "-c", commands)) == "7\n"


@pytest.mark.parametrize("profile", ["shell", "strict"])
def test_pipelines_and_file_tools_work(run: Run, profile: str) -> None:
    commands = (
        "set -e; seq 1000 | sort -rn | awk '{s+=$1} END {print s}' | tee o; cat <(echo sub) <<<here;"
        "find . -type f | xargs -P2 wc -c >/dev/null; tar czf t.tgz o; tar xzf t.tgz; cp -a o p; sed -i s/5/6/ p;"
        "dd if=/dev/zero of=z bs=1k count=4 2>/dev/null; touch -d yesterday z; df . >/dev/null;"
        "timeout 5 sleep 0.01; rm z"
    )
    assert succeeded(run(profile, "/bin/bash", "-c", commands)) == "500500\nsub\n"


def test_the_filter_is_on_in_every_thread(run: Run) -> None:
    code = (
        "import threading\n"
        "def show(): print([l for l in open('/proc/thread-self/status') if l.startswith('Seccomp:')][0].split()[1])\n"
        "show(); t = threading.Thread(target=show); t.start(); t.join()"
    )
    assert succeeded(run("default", "/usr/bin/python3", "-c", code)) == "2\n2\n"
    assert succeeded(run("", "/usr/bin/python3", "-c", code)) != "2\n2\n"


ATTEMPTS = {
    "ptrace": ("101, 0, 0, 0, 0", 1),
    "bpf": ("321, 0, 0, 0", 1),
    "io_uring_setup": ("425, 1, 0", 1),
    "keyctl": ("250, 0, -3, 0", 1),
    "unshare": ("272, 0x10000000", 1),
    "clone with a new user namespace": ("56, 0x10000011, 0, 0, 0, 0", 1),
    "clone3": ("435, 0, 0", 38),
    "vsock": ("41, 40, 1, 0", 1),
    "raw socket": ("41, 2, 3, 1", 1),
    "mptcp": ("41, 2, 1, 262", 1),
    "netfilter netlink": ("41, 16, 3, 12", 1),
    "seccomp": ("317, 1, 0, 0", 1),
    "typing into a terminal": ("16, 0, 0x5412, 0", 1),
    "inotify": ("294, 0", 1),
    "shared memory of SysV": ("29, 0, 4096, 0o1600", 1),
    "number 600": ("600, 0", 38),
    "fchmodat2": ("452, -100, 0, 0, 0", 38),
}


@pytest.mark.skipif(os.uname().machine != "x86_64", reason="needs a kernel feature: numbers of x86_64")
@pytest.mark.parametrize("name", ATTEMPTS)
def test_attempts_end_as_the_contract_says(run: Run, name: str) -> None:
    call, expected = ATTEMPTS[name]
    code = (
        "import ctypes\nl = ctypes.CDLL(None, use_errno=True)\n"
        f"r = l.syscall(*(ctypes.c_long(a) for a in ({call})))\nprint(r, ctypes.get_errno())"
    )
    assert succeeded(run("default", "/usr/bin/python3", "-c", code)) == f"-1 {expected}\n"


@pytest.mark.skipif(os.uname().machine != "x86_64", reason="needs a kernel feature: the x32 numbers of x86_64")
def test_an_x32_call_kills(run: Run) -> None:
    code = "import ctypes; ctypes.CDLL(None).syscall(ctypes.c_long(0x40000000 | 39))"
    assert run("", "/usr/bin/python3", "-c", code).returncode == 0
    assert run("default", "/usr/bin/python3", "-c", code).returncode == -31
