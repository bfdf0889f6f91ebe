"""Builds the two disks of the virtual machine: a Debian 12 root with its kernel, kept between runs, and this checkout.

The root is keyed by what goes into it. Needs root (debootstrap makes device nodes and changes root). Used by `test_vm`.
"""

import compileall
import hashlib
import os
import py_compile
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

SUITE = "bookworm"
PYTHON = (3, 11)  # of that suite: the checkout's virtual environment is used as it is
PACKAGES = (
    "linux-image-cloud-amd64",
    "initramfs-tools",
    "python3",
    "libseccomp2",
    "libatomic1",
    "uidmap",
    "iproute2",
    "procps",
    "kmod",
    "zstd",
    "gcc",
    "libc6-dev",
)
FIRST_STEPS = Path(__file__).parent / "init.sh"
CHECKOUT = Path(__file__).resolve().parents[2]

# Of the virtual environment, what no test in the machine runs. It saves a third of the copying.
LEFT_OUT = ("ruff*", "mypy*", "buf*", "grpc_tools*", "kubernetes_validate*", "hypothesis*", "setuptools*")
CACHES = (".git", ".mypy_cache", ".ruff_cache", ".pytest_cache", ".hypothesis", ".cache", "build", "dist")


@dataclass(frozen=True, slots=True)
class Root:
    """Paths of the root disk image and of the kernel and initial ramdisk that belong to it."""

    image: Path
    kernel: Path
    initrd: Path


def cache_directory() -> Path:
    return Path(os.environ.get("CI_CACHE") or Path.home() / ".cache" / "sandboxd-ci")


def root() -> Root:
    """The root disk of this package list, built if it is not there yet (two to three minutes)."""
    key = hashlib.sha256(repr((SUITE, PACKAGES, FIRST_STEPS.read_bytes())).encode()).hexdigest()[:16]
    directory = cache_directory() / f"vm-{key}"
    if not directory.exists():
        directory.parent.mkdir(parents=True, exist_ok=True)
        building = Path(tempfile.mkdtemp(prefix="vm-building-", dir=directory.parent))
        try:
            _build(building)
            building.rename(directory)
        finally:
            shutil.rmtree(building, ignore_errors=True)
    return Root(directory / "root.img", directory / "vmlinuz", directory / "initrd.img")


def _build(directory: Path) -> None:
    tree = directory / "tree"
    log = directory / "debootstrap.log"
    command = ["debootstrap", "--variant=minbase", f"--include={','.join(PACKAGES)}", SUITE, str(tree)]
    with log.open("wb") as sink:
        status = subprocess.run(command, stdout=sink, stderr=subprocess.STDOUT, check=False).returncode
    if status != 0:
        raise RuntimeError(f"{' '.join(command)} ended with {status}:\n{log.read_text()[-2000:]}")
    shutil.copy(FIRST_STEPS, tree / "first-steps")
    (tree / "first-steps").chmod(0o755)
    shutil.copy(next((tree / "boot").glob("vmlinuz-*")), directory / "vmlinuz")
    shutil.copy(next((tree / "boot").glob("initrd.img-*")), directory / "initrd.img")
    shutil.rmtree(tree / "var/cache/apt")
    _make_image(tree, directory / "root.img", megabytes=2048)
    shutil.rmtree(tree)


def checkout_disk(image: Path, extra: Mapping[str, str]) -> None:
    """This working tree with its virtual environment and some `extra` files; the machine mounts it at the same path."""
    if sys.version_info[:2] != PYTHON:
        raise RuntimeError(
            f"the machine has Python {PYTHON}, .venv has {sys.version_info[:2]}; make .venv with that one"
        )
    with tempfile.TemporaryDirectory(dir=image.parent) as name:
        tree = Path(name) / "tree"
        shutil.copytree(CHECKOUT, tree, symlinks=True, ignore=shutil.ignore_patterns(*CACHES, *LEFT_OUT))
        for path, text in extra.items():
            (tree / path).write_text(text)
        _compile(tree)
        _make_image(tree, image, megabytes=1024)


def _compile(tree: Path) -> None:
    """There each module takes most of a second to compile, and a daemon that is not root cannot keep the outcome."""
    for name in ("sandboxd", "tests"):
        directory = tree / name
        where = str(CHECKOUT / name)
        unchecked = py_compile.PycInvalidationMode.UNCHECKED_HASH
        if not compileall.compile_dir(directory, ddir=where, force=True, quiet=1, invalidation_mode=unchecked):
            raise RuntimeError(f"{where} does not compile; its errors are above")


def _make_image(tree: Path, image: Path, megabytes: int) -> None:
    subprocess.run(["mke2fs", "-q", "-F", "-t", "ext4", "-d", str(tree), str(image), f"{megabytes}M"], check=True)
