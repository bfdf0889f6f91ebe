"""The stage and its views on the real kernel, each in a mount namespace that is thrown away."""

import errno
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from sandboxd.spawner import wire
from sandboxd.spawner.mounts import Stage, ViewInvalid, view_digest
from sandboxd.spawner.template import Bind, View
from tests.skips import need_root
from tests.unit.spawner import spawner_rig
from tests.unit.spawner.spawner_rig import TEMPLATE, VIEW, Daemon
from tests.unit.spawner.thrown_away import in_own_mounts

EMPTY = View("", (), (), ())


def _on_stage(body: Callable[[Stage], object]) -> str:
    need_root()
    return in_own_mounts(lambda: body(Stage()))


def _built(view: View, look: Callable[[str], object]) -> str:
    def body(stage: Stage) -> object:
        try:
            return look(stage.add_view(view))
        except ViewInvalid as error:
            return f"invalid: {error}; left: {os.listdir('/views')}"

    return _on_stage(body)


def test_stage_shows_nothing_of_the_host_but_the_door_back() -> None:
    def body(stage: Stage) -> str:
        with stage.host():
            outside = os.path.exists("/usr/bin")
        return f"{os.path.exists('/usr')} {outside} {os.path.exists('/usr')}"

    assert _on_stage(body) == "False True False"


def test_view_holds_binds_links_and_files_read_only() -> None:
    def look(path: str) -> str:
        try:
            os.mkdir(f"{path}/new")
        except OSError as error:
            failure = error.strerror
        content = Path(f"{path}/etc/passwd").read_text()
        return f"{os.path.isdir(path + '/usr/bin')} {os.readlink(path + '/bin')} {content.count('sandbox')} {failure}"

    assert _built(VIEW, look) == "True usr/bin 1 Read-only file system"


def test_missing_required_source_is_named_and_leaves_nothing(tmp_path: Path) -> None:
    view = replace(EMPTY, binds=(Bind(str(tmp_path / "no"), "/x", executable=False, optional=False),))
    answer = _built(view, lambda path: "built")
    assert answer.startswith(f"invalid: cannot bind '{tmp_path}/no'")
    assert answer.endswith("left: []")


def test_missing_optional_source_is_left_out(tmp_path: Path) -> None:
    view = replace(EMPTY, binds=(Bind(str(tmp_path / "no"), "/x", executable=False, optional=True),))
    assert _built(view, lambda path: sorted(os.listdir(path))) == "['dev', 'proc', 'tmp', 'workspace']"


def test_small_public_file_is_copied_and_a_private_one_stays_private(tmp_path: Path) -> None:
    seen = {}
    for name, mode in (("public", 0o644), ("private", 0o600)):
        (tmp_path / name).write_text(name)
        (tmp_path / name).chmod(mode)
        view = replace(EMPTY, binds=(Bind(str(tmp_path / name), "/f", executable=False, optional=False),))
        seen[name] = _built(view, lambda path: f"{os.stat(path + '/f').st_mode & 0o777:o} {_content(path + '/f')}")
    assert seen["public"] == "444 public"
    assert seen["private"] in ("600 closed", "600 private")  # root may read it where its owner cannot be hidden


def _content(path: str) -> str:
    try:
        return Path(path).read_text()
    except PermissionError:
        return "closed"


@pytest.fixture
def image(tmp_path: Path) -> Path:
    for name in ("proc", "dev", "tmp", "workspace", "etc"):
        (tmp_path / "image" / name).mkdir(parents=True)
    return tmp_path / "image"


def test_image_is_a_root_read_only(image: Path) -> None:
    def look(path: str) -> str:
        try:
            os.mkdir(f"{path}/etc/new")
        except OSError as error:
            return str(error.strerror)
        return "written"

    assert _built(replace(EMPTY, image=str(image)), look) == "Read-only file system"


@pytest.mark.parametrize("spoil", [lambda d: None, lambda d: d.symlink_to("/etc"), lambda d: d.touch()])
@pytest.mark.parametrize("name", ["proc", "dev", "tmp", "workspace"])
def test_image_without_a_real_mount_point_is_refused(name: str, spoil: Callable[[Path], None], image: Path) -> None:
    (image / name).rmdir()
    spoil(image / name)
    assert f"the image has no directory '/{name}'" in _built(replace(EMPTY, image=str(image)), lambda path: "built")


def test_bind_below_a_link_of_the_image_is_refused(image: Path) -> None:
    (image / "data").symlink_to("/etc")
    view = replace(EMPTY, image=str(image), binds=(Bind("/usr", "/data", executable=True, optional=False),))
    assert _built(view, lambda path: "built").startswith("invalid: cannot build the root")


@dataclass(frozen=True, slots=True)
class WithImage:
    """A spawner that makes each sandbox when it is asked for, from an image in which programs run."""

    image: Path
    daemon: Daemon


@pytest.fixture(scope="module")
def with_image(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WithImage]:
    need_root()
    image = tmp_path_factory.mktemp("image")
    image.chmod(0o755)
    for name in ("proc", "dev", "tmp", "workspace", "etc", "usr"):
        (image / name).mkdir()
    for name in ("bin", "lib", "lib64"):
        (image / name).symlink_to(f"usr/{name}")
    with spawner_rig.start(tmp_path_factory.mktemp("spawner"), "--blank-stock", "0") as rig:
        rig.compile(replace(TEMPLATE, view=replace(VIEW, image=str(image), symlinks=(), files=())))
        yield WithImage(image, rig.daemon())


def _works(daemon: Daemon, number: int) -> bool:
    sandbox = daemon.ready_sandbox(spawner_rig.launch(number))
    ended = sandbox.run("/bin/sh", "-c", "echo x | tee /workspace/x /tmp/x; ls /etc")
    daemon.destroy(sandbox)
    return (ended.status, ended.output) == (0, "x\n")


@pytest.mark.parametrize("target", ["etc", "../dev", "/proc.full", "/etc"])
@pytest.mark.parametrize("name", ["proc", "dev", "tmp", "workspace"])
def test_link_put_into_an_image_diverts_no_mount(name: str, target: str, with_image: WithImage) -> None:
    """CVE-2019-16884, CVE-2023-27561, CVE-2025-31133, CVE-2025-52565, by an owner who swaps it after the check."""
    place, daemon = with_image.image / name, with_image.daemon
    assert _works(daemon, 1)
    place.rename(with_image.image / "aside")
    place.symlink_to(target)
    try:
        daemon.peer.send(spawner_rig.launch(2))
        refused, _ = daemon.peer.expect(wire.Refused)
    finally:
        place.unlink()
        (with_image.image / "aside").rename(place)
    assert (refused.request_id, refused.reason) == (2, "launch_failed")
    assert refused.message == f"view: [Errno {errno.ELOOP}] openat2: {os.strerror(errno.ELOOP)}: '{name}'"
    assert _works(daemon, 3)


def test_file_below_a_link_of_the_profile_leaves_the_stage_alone() -> None:
    view = replace(EMPTY, symlinks=(("/bin", "/views"),), files=(("/bin/a/b/c", ""),))
    answer = _built(view, lambda path: "built")
    assert answer.startswith("invalid: cannot build the root")
    assert answer.endswith("left: []")


def test_same_view_is_built_once_and_unused_ones_go() -> None:
    def body(stage: Stage) -> str:
        first, again = stage.add_view(VIEW), stage.add_view(VIEW)
        other = stage.add_view(EMPTY)
        stage.retain_views(frozenset({other}))
        return f"{first == again} {os.listdir('/views') == [os.path.basename(other)]}"

    assert _on_stage(body) == "True True"
    assert view_digest(VIEW) != view_digest(EMPTY)


def test_living_sandbox_has_exactly_its_mounts_with_their_flags(spawner: Daemon) -> None:
    sandbox = spawner.ready_sandbox()
    lines = sandbox.run("/bin/cat", "/proc/self/mountinfo").output.splitlines()
    flags = {line.split()[4]: set(line.split()[5].split(",")) for line in lines}
    spawner.destroy(sandbox)
    assert not any("shared:" in line for line in lines)
    assert all("nosuid" in held for held in flags.values())
    for place in ("/workspace", "/tmp", "/dev/shm", "/proc"):
        assert {"rw", "nodev", "noexec"} <= flags[place], place
    for place in ("/", "/usr", "/dev", "/proc/sys"):
        assert "ro" in flags[place], place
