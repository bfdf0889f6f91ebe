"""Limits of files: descriptors, size of one file, bytes and inodes of the workspace and /tmp, core files."""

import pytest

from sandboxd.client import Client, EndReason

MIB = 1 << 20
PYTHON = "/usr/bin/python3"
FILL = """
import os, sys
written = 0
try:
    with open(sys.argv[1] + "/fill", "wb", buffering=0) as file:
        while written < 400 << 20:
            written += file.write(bytes(1 << 16))
except OSError as error:
    import errno
    print(errno.errorcode[error.errno], flush=True)
"""
INODES = """
import errno, sys
made = 0
try:
    for made in range(100000):
        open(f"{sys.argv[1]}/{made}", "w").close()
except OSError as error:
    print(errno.errorcode[error.errno], made, flush=True)
"""


@pytest.mark.parametrize(
    ("directory", "limit", "hit"),
    [
        ("/workspace", "workspace_bytes", "workspace_bytes"),
        ("/tmp", "tmp_bytes", "tmp_bytes"),
        ("/dev/shm", "tmp_bytes", ""),
    ],
)
def test_r03_r09_full_disk_is_enospc_in_the_sandbox_alone(directory: str, limit: str, hit: str, client: Client) -> None:
    result = client.run([PYTHON, "-c", FILL, directory], limits={limit: 8 * MIB})
    assert result.end_reason is EndReason.EXITED, "refused before the memory limit is reached"
    assert result.stdout == b"ENOSPC\n"
    assert not hit or hit in result.limits_hit


@pytest.mark.parametrize(
    ("directory", "limit", "hit"),
    [
        ("/workspace", "workspace_inodes", "workspace_inodes"),
        ("/tmp", "tmp_inodes", "tmp_inodes"),
        ("/dev/shm", "tmp_inodes", ""),
    ],
)
def test_r09_inodes_run_out_in_the_sandbox_alone(directory: str, limit: str, hit: str, client: Client) -> None:
    result = client.run([PYTHON, "-c", INODES, directory], limits={limit: 200})
    code, made = result.stdout.split()
    assert code == b"ENOSPC"
    assert int(made) <= 200
    assert not hit or hit in result.limits_hit


def test_inputs_count_as_the_workspace(client: Client) -> None:
    result = client.run(
        [PYTHON, "-c", FILL, "/workspace"],
        files={"input": bytes(2 * MIB)},
        collect=["fill"],
        limits={"workspace_bytes": 3 * MIB},
    )
    assert result.stdout == b"ENOSPC\n"
    assert sum(len(file.content) for file in result.files) <= 1 * MIB


def test_open_files_limit_is_emfile(client: Client) -> None:
    source = """
import errno, os, time
held = []
try:
    while True: held.append(os.open("/dev/null", os.O_RDONLY))
except OSError as error:
    print(errno.errorcode[error.errno], max(held) + 1, flush=True)
time.sleep(2)  # who counts descriptors looks twenty times a second
"""
    result = client.run([PYTHON, "-c", source], limits={"open_files": 64})
    assert result.stdout == b"EMFILE 64\n"
    assert "open_files" in result.limits_hit


def test_file_size_limit_ends_the_write(client: Client) -> None:
    source = """
import errno, signal
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
try:
    with open("big", "wb", buffering=0) as file:
        while True: file.write(bytes(1 << 16))
except OSError as error:
    print(errno.errorcode[error.errno], file.tell() if not file.closed else "", flush=True)
"""
    result = client.run([PYTHON, "-c", source], limits={"file_size_bytes": 1 * MIB}, collect=["big"])
    assert result.stdout.split()[0] == b"EFBIG"
    assert [len(file.content) for file in result.files] == [MIB]


def test_file_size_limit_signals_who_does_not_handle_it(client: Client) -> None:
    result = client.run(["/bin/sh", "-c", "exec head -c 8000000 /dev/zero > big"], limits={"file_size_bytes": MIB})
    assert result.end_reason is EndReason.SIGNALED
    assert result.signal == 25
    assert "file_size" in result.limits_hit


def test_r19_crash_leaves_no_core(client: Client) -> None:
    source = """
import os, resource
for limit in (1, 2, 1 << 20, resource.RLIM_INFINITY):
    try: resource.setrlimit(resource.RLIMIT_CORE, (limit, limit))
    except (ValueError, OSError): pass
print(resource.getrlimit(resource.RLIMIT_CORE)[1], flush=True)
os.abort()
"""
    result = client.run([PYTHON, "-c", source], collect=["*"])
    assert result.end_reason is EndReason.SIGNALED
    assert result.signal == 6
    assert result.stdout in (b"0\n", b"1\n")
    assert result.files == ()
