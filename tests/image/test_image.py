"""The container image: built from the Dockerfile, started as the DaemonSet would, and a payload confined in it."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.image.build import IMAGE, built_image, run
from tests.image.container import Container, started
from tests.skips import need_program, need_root

pytestmark = pytest.mark.image


@pytest.fixture(scope="module")
def rootfs() -> Iterator[Path]:
    """The image's file system, mounted for a container."""
    need_root()
    for program, package in (("buildah", "buildah"), ("runc", "runc"), ("debootstrap", "debootstrap")):
        need_program(program, package)
    with built_image() as store:
        store.buildah("from", "--name", "under-test", IMAGE)
        yield Path(store.buildah("mount", "under-test").strip())
        store.buildah("umount", "under-test")
        store.buildah("rm", "under-test")


@pytest.fixture(scope="module")
def container(rootfs: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Container]:
    with started(rootfs, tmp_path_factory.mktemp("bundle")) as running:
        yield running


def test_payload_runs_confined_in_the_container(container: Container) -> None:
    done = container.run(
        *("sandboxctl", "run", "--json", "--profile", "python", "--"),
        *("/usr/bin/python3", "-c", "import os; print(6 * 7, os.getuid(), sorted(os.listdir('/')))"),
    )
    assert done.returncode == 0, done.stdout + done.stderr + container.log.read_text()[-4000:]
    result = json.loads(done.stdout)
    assert result["end_reason"] == "EXITED"
    # The root that an engine gives a container is an overlay, which takes no id maps; nothing else may be lacking.
    lesser = {row["guarantee"]: row["reason"] for row in result["enforcement"]["rows"] if row["state"] != "enforced"}
    assert list(lesser) == ["filesystem.sockets"]
    assert "mount_setattr: Invalid argument" in lesser["filesystem.sockets"]


def test_image_ships_no_build_tools_and_no_code_that_the_daemon_may_change(rootfs: Path) -> None:
    assert not (rootfs / "home/builder").exists()
    package = next((rootfs / "opt/sandboxd/lib").glob("python3*/site-packages/sandboxd/daemon.py"))
    assert (package.stat().st_uid, package.stat().st_mode & 0o022) == (0, 0)


def test_node_check_in_the_container_finds_every_profile_startable(container: Container) -> None:
    done = container.run_as_root("sandboxd", "check", "--json")
    assert json.loads(done.stdout)["unstartable"] == [], done.stdout


def test_final_stage_runs_the_daemon_under_its_own_account(rootfs: Path) -> None:
    assert "sandboxd:" in run(["cat", str(rootfs / "etc/passwd")])
