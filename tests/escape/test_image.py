"""F19: an image whose mount points turn into links, after its profile was checked, diverts no mount to the host.

The image is a directory that its owner goes on changing. CVE-2025-31133, CVE-2025-52565 and CVE-2026-41579 were this.
"""

import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from sandboxd.client import Client, EndReason, RuntimeFailed
from sandboxd.profile.load import load_profiles
from tests.daemon import CHECKOUT, Mode, RunningDaemon, start_daemon
from tests.skips import need_program, need_root

PROFILE = """
apiVersion: sandboxd.io/v1
kind: SandboxProfile
metadata:
  name: image
  labels: {{sandboxd.io/reviewed: "true"}}
spec:
  description: an image, with the host's programs in it
  extends: default
  root: {{image: {{path: {image}, why: "the image of this test"}}}}
  without:
    binds: [{binds}]
    symlinks: [{symlinks}]
    files: [{files}]
"""
MOUNT_POINTS = ("proc", "dev", "tmp", "workspace")


@dataclass(frozen=True, slots=True)
class WithImage:
    """A daemon that makes each sandbox when it is asked for, from `image`; `victim` is a directory of the host."""

    daemon: RunningDaemon
    image: Path
    victim: Path


@pytest.fixture(scope="module", params=list(Mode), ids=str)
def with_image(request: pytest.FixtureRequest) -> Iterator[WithImage]:
    need_root()
    if request.param is Mode.ROOTLESS_SUBUID:
        need_program("newuidmap", "uidmap")
    directory = Path(tempfile.mkdtemp(prefix="sandboxd-image-", dir="/var/tmp"))
    try:
        directory.chmod(0o755)
        image, victim, profiles = (directory / name for name in ("image", "victim", "profiles"))
        for name in (*MOUNT_POINTS, "etc", "usr"):
            (image / name).mkdir(parents=True)
        for name in ("bin", "lib", "lib64"):
            (image / name).symlink_to(f"usr/{name}")
        (image / "etc" / "of-the-image").write_text("seen\n")
        victim.mkdir()
        victim.chmod(0o777)
        for name in ("ptmx", "null"):
            (victim / name).write_text("the host's\n")
        profiles.mkdir()
        (profiles / "image.yaml").write_text(_profile(image))
        settings = f"profiles: {{paths: [{CHECKOUT / 'profiles'}, {profiles}]}}\n"
        settings += "runtimes: {process: {blank_stock: 0}}\n"
        with start_daemon(request.param, settings) as daemon:
            yield WithImage(daemon, image, victim)
    finally:
        shutil.rmtree(directory)


def _profile(image: Path) -> str:
    """As `default`, without whatever it puts into a root of its own but /usr."""
    root = load_profiles([CHECKOUT / "profiles"]).get("default").spec.root
    return PROFILE.format(
        image=image,
        binds=", ".join(bind.source for bind in root.binds if bind.source != "/usr"),
        symlinks=", ".join(link.path for link in root.symlinks),
        files=", ".join(file.path for file in root.files),
    )


def _works(client: Client) -> bool:
    script = "cat /etc/of-the-image; echo x > /workspace/x; echo x > /tmp/x; echo x > /dev/null; ls /proc/self/exe"
    result = client.run(["/bin/sh", "-ec", script], profile="image")
    assert result.end_reason is EndReason.EXITED, result
    assert result.stdout == b"seen\n/proc/self/exe\n", result
    return result.exit_code == 0


def test_image_is_the_root_and_stays_as_it_is(with_image: WithImage) -> None:
    before = sorted(with_image.image.rglob("*"))
    with with_image.daemon.client() as client:
        assert _works(client)
        for place in ("/new", "/etc/new", "/usr/new"):
            result = client.run(["/bin/mkdir", place], profile="image")
            assert b"Read-only file system" in result.stderr, result
    assert sorted(with_image.image.rglob("*")) == before


@pytest.mark.parametrize("name", MOUNT_POINTS)
def test_f19_link_in_an_image_diverts_no_mount_to_the_host(name: str, with_image: WithImage) -> None:
    place, aside, victim = with_image.image / name, with_image.image / "aside", with_image.victim
    before = {path.name: path.read_text() for path in victim.iterdir()}
    with with_image.daemon.client() as client:
        assert _works(client), "the control: the same image without the link"
        place.rename(aside)
        place.symlink_to(victim)
        try:
            assert (place / "ptmx").read_text() == "the host's\n", "the control: a path leads through the link"
            with pytest.raises(RuntimeFailed) as caught:
                client.run(["/bin/true"], profile="image")
        finally:
            place.unlink()
            aside.rename(place)
        assert str(victim) not in str(caught.value), "nor does the caller learn of the host"
        assert {path.name: path.read_text() for path in victim.iterdir()} == before
        mounts = Path(f"/proc/{with_image.daemon.process.pid}/mountinfo").read_text(encoding="utf-8")
        assert str(victim) not in mounts
        assert _works(client)
