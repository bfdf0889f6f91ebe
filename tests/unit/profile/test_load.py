import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sandboxd.errors import InvalidRequest, ProfileInvalid
from sandboxd.profile.load import load_profiles, parse
from tests.unit.profile.profiles import COMPLETE, SHIPPED, child, shipped


def test_all_shipped_profiles_load() -> None:
    assert shipped().names() == ("build", "default", "node", "python", "shell", "strict")
    assert [profile.name for profile in shipped()] == list(shipped().names())


def test_an_unknown_profile_is_an_invalid_request_that_names_the_known_ones() -> None:
    with pytest.raises(InvalidRequest, match="build, default, node") as caught:
        shipped().get("../default")
    assert caught.value.reason == "profile_unknown"


def test_a_misspelt_key_is_named_with_its_line_and_the_likely_one() -> None:
    text = COMPLETE.replace("memory_bytes: 64MiB", "memroy_bytes: 64MiB")
    with pytest.raises(ProfileInvalid) as caught:
        parse(text.encode(), "profiles/x.yaml")
    assert caught.value.message == "profiles/x.yaml:19: unknown key 'memroy_bytes'; did you mean 'memory_bytes'"


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("proc: subset", "uid: 0"),
        ("network: none", "network: host"),
        ("{names: [execve", "{action: allow, names: [execve"),
        ("executable: true, why", "writable: true, why"),
        ("metadata:", "metadata:\n  namespace: x"),
        ("name: small", "name: Small/../x"),
    ],
)
def test_what_the_schema_does_not_know_is_refused(old: str, new: str) -> None:
    assert old in COMPLETE
    with pytest.raises(ProfileInvalid, match=r"^p\.yaml:\d+: "):
        parse(COMPLETE.replace(old, new, 1).encode(), "p.yaml")


def test_several_mistakes_are_told_at_once() -> None:
    text = COMPLETE.replace("proc: subset", "proc: all").replace("network: none", "netwrok: none")
    with pytest.raises(ProfileInvalid) as caught:
        parse(text.encode(), "p.yaml")
    assert [line.split(":")[1] for line in caught.value.message.splitlines()] == ["12", "13"]


def test_a_parent_of_the_same_set_is_found_and_another_file_is_not(tmp_path: Path) -> None:
    (tmp_path / "small.yaml").write_text(COMPLETE)
    (tmp_path / "child.yaml").write_text(child("  limits: {pids: 4}\n"))
    (tmp_path / "ignored.txt").write_text("not a profile")
    assert load_profiles([tmp_path]).get("child").limits.pids == 4
    with pytest.raises(ProfileInvalid, match=r"^\S*child\.yaml:6: parent 'small' is unknown; known are child"):
        load_profiles([tmp_path / "child.yaml"])


def test_profiles_that_extend_each_other_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(child("", name="a", extends="b"))
    (tmp_path / "b.yaml").write_text(child("", name="b", extends="a"))
    with pytest.raises(ProfileInvalid, match="circle: a → b → a"):
        load_profiles([tmp_path])


def test_a_long_chain_of_parents_is_refused(tmp_path: Path) -> None:
    (tmp_path / "p0.yaml").write_text(COMPLETE.replace("name: small", "name: p0"))
    for depth in range(1, 10):
        (tmp_path / f"p{depth}.yaml").write_text(child("", name=f"p{depth}", extends=f"p{depth - 1}"))
    with pytest.raises(ProfileInvalid, match="more than 8"):
        load_profiles([tmp_path])


def test_two_files_of_one_name_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(COMPLETE)
    (tmp_path / "b.yaml").write_text(COMPLETE)
    with pytest.raises(ProfileInvalid, match=r"b\.yaml:4: profile 'small' is already defined in .*a\.yaml"):
        load_profiles([tmp_path])


def test_a_file_that_others_can_change_a_pipe_and_nothing_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "p.yaml"
    path.write_text(COMPLETE)
    path.chmod(0o666)
    with pytest.raises(ProfileInvalid, match="everyone on the host can change it"):
        load_profiles([path])
    path.unlink()
    with pytest.raises(ProfileInvalid, match="cannot be read"):
        load_profiles([path])
    os.mkfifo(path)
    with pytest.raises(ProfileInvalid, match="not a regular file"):
        load_profiles([path])
    path.unlink()
    with pytest.raises(ProfileInvalid, match="no profile in"):
        load_profiles([tmp_path])


def test_profiles_cannot_show_the_daemons_own_directories(tmp_path: Path) -> None:
    (tmp_path / "p.yaml").write_text(COMPLETE)
    with pytest.raises(ProfileInvalid, match="belongs to the daemon"):
        load_profiles([tmp_path], protected=["/usr/local/state"])


SEED = (SHIPPED / "strict.yaml").read_bytes()


@settings(max_examples=60, deadline=None)
@given(st.integers(0, len(SEED) - 1), st.integers(0, 12), st.binary(max_size=4))
def test_a_damaged_profile_loads_or_is_refused_and_nothing_else(at: int, cut: int, put: bytes) -> None:
    try:
        parse(SEED[:at] + put + SEED[at + cut :], "fuzz")
    except ProfileInvalid as error:
        assert error.message.startswith("fuzz:")
