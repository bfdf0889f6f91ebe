"""Builds the container image as the Dockerfile says, with what a machine without image registry has.

The base is a debootstrap tree, kept between runs; wheels are fetched by the host's pip and pinned by the lock file, so
that the build itself needs Debian's packages only. Needs root. Used by `test_image`.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[2]
SUITE = "bookworm"
BASE, IMAGE = "localhost/base", "localhost/sandboxd"


@dataclass(frozen=True, slots=True)
class Store:
    """Where buildah keeps images; nothing of it is in the machine's own store."""

    directory: Path

    def buildah(self, *arguments: str) -> str:
        where = ("--root", str(self.directory / "root"), "--runroot", str(self.directory / "run"))
        return run(["buildah", *where, "--storage-driver", "overlay", *arguments])


def run(command: Sequence[str], cwd: Path = CHECKOUT) -> str:
    """Its standard output; AssertionError with the end of what it said if it fails."""
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)
    assert done.returncode == 0, (
        f"{' '.join(command)} ended with {done.returncode}:\n{(done.stdout + done.stderr)[-4000:]}"
    )
    return done.stdout


def base_archive() -> Path:
    """A minimal Debian as a tar file, about a minute of work the first time."""
    cache = Path(os.environ.get("CI_CACHE") or Path.home() / ".cache" / "sandboxd-ci")
    archive = cache / f"base-{SUITE}.tar"
    if not archive.exists():
        cache.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix="base-building-", dir=cache) as name:
            tree = Path(name) / "tree"
            run(["debootstrap", "--variant=minbase", SUITE, str(tree)])
            shutil.rmtree(tree / "var/cache/apt")
            run(["tar", "--create", "--file", f"{name}/base.tar", "--directory", str(tree), "."])
            Path(name, "base.tar").rename(archive)
    return archive


def wheels(directory: Path) -> None:
    """Every wheel that installing sandboxd needs, and those that build it."""
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--disable-pip-version-check"]
    run([*command, "--constraint", "requirements.lock", "--wheel-dir", str(directory), ".", "hatchling"])
    for own in directory.glob("sandboxd-*.whl"):
        own.unlink()  # the image builds it from source


@contextmanager
def built_image() -> Iterator[Store]:
    """A store that holds the image; gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="sandboxd-image-", dir="/var/tmp") as name:
        directory = Path(name)
        store = Store(directory)
        context, wheelhouse = directory / "base", directory / "wheels"
        context.mkdir()
        shutil.copy(base_archive(), context / "base.tar")
        (context / "Containerfile").write_text("FROM scratch\nADD base.tar /\n")
        store.buildah("build", "--isolation", "chroot", "--tag", BASE, str(context))
        (context / "base.tar").unlink()
        wheels(wheelhouse)
        directory.chmod(0o755)
        store.buildah(
            *("build", "--isolation", "chroot", "--tag", IMAGE, "--file", "Dockerfile"),
            *("--build-arg", f"BASE={BASE}", "--build-arg", "PIP_NO_INDEX=1", "--build-arg", "PIP_FIND_LINKS=/wheels"),
            *("--volume", f"{wheelhouse}:/wheels:ro", str(CHECKOUT)),
        )
        yield store
