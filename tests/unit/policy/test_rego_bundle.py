import os
from pathlib import Path

import pytest

from sandboxd.errors import PolicyInvalid
from sandboxd.policy.rego_bundle import read_bundle


def write(directory: Path, **files: str) -> Path:
    for name, text in files.items():
        (directory / name.replace("__", ".")).write_text(text)
    return directory


def test_modules_and_data_are_read_and_tests_are_not(tmp_path: Path) -> None:
    write(tmp_path, a__rego="package a", a_test__rego="package b", data__json='{"x": 1}', notes__txt="no")
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib" / "data.json").write_text('{"y": 2}')
    bundle = read_bundle([tmp_path])
    assert bundle.modules == (("a.rego", "package a"),)
    assert bundle.data_json == '{"x": 1, "lib": {"y": 2}}'


def test_revision_changes_with_any_name_and_any_byte_only(tmp_path: Path) -> None:
    revisions = []
    for number, (name, text) in enumerate(
        [("a", "package a"), ("a", "package a"), ("b", "package a"), ("a", "package A")]
    ):
        directory = tmp_path / str(number)
        directory.mkdir()
        revisions.append(read_bundle([write(directory, **{f"{name}__rego": text})]).revision)
    assert revisions[0] == revisions[1]
    assert len(set(revisions)) == 3


def test_manifest_gives_the_revision(tmp_path: Path) -> None:
    write(tmp_path, a__rego="package a")
    (tmp_path / ".manifest").write_text('{"revision": "v7"}')
    assert read_bundle([tmp_path]).revision == "v7"


def test_a_single_file_is_a_bundle(tmp_path: Path) -> None:
    assert read_bundle([write(tmp_path, a__rego="package a") / "a.rego"]).modules == (("a.rego", "package a"),)


@pytest.mark.parametrize("target", ["file", "directory", "root"])
def test_symbolic_links_are_refused(tmp_path: Path, target: str) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    write(outside, a__rego="package a")
    inside = tmp_path / "inside"
    match target:
        case "root":
            inside.symlink_to(outside)
        case "directory":
            inside.mkdir()
            write(inside, b__rego="package b")
            (inside / "lib").symlink_to(outside)
        case _:
            inside.mkdir()
            (inside / "a.rego").symlink_to(outside / "a.rego")
    assert read_bundle([outside]).modules
    with pytest.raises(PolicyInvalid, match=r"symbolic link|neither a directory"):
        read_bundle([inside])


def test_a_fifo_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.rego")
    with pytest.raises(PolicyInvalid, match="not a regular file"):
        read_bundle([tmp_path])


def test_nothing_to_read_is_refused(tmp_path: Path) -> None:
    with pytest.raises(PolicyInvalid, match="no policy in"):
        read_bundle([tmp_path])
    with pytest.raises(PolicyInvalid, match="No such file"):
        read_bundle([tmp_path / "absent"])


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.rego", b"package a\n# \xff", r"a\.rego:2: byte 0xff"),
        ("data.json", b"[]", "not an object"),
        ("data.json", b"{", "not JSON"),
        ("data.json", b"[" * 100_000, "not JSON"),
        (".manifest", b'{"revision": 7}', "revision 7"),
    ],
)
def test_ill_shaped_files_are_refused_by_name(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    write(tmp_path, z__rego="package z")
    (tmp_path / name).write_bytes(content)
    with pytest.raises(PolicyInvalid, match=message):
        read_bundle([tmp_path])


def test_data_defined_twice_is_refused(tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    one.mkdir()
    two.mkdir()
    write(one, a__rego="package a", data__json='{"x": 1}')
    write(two, data__json='{"x": 2}')
    with pytest.raises(PolicyInvalid, match="already defined"):
        read_bundle([one, two])
