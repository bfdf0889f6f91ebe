import json
import os
from pathlib import Path

import pytest

from sandboxd.errors import PolicyInvalid
from sandboxd.policy.rego_bundle import MAX_BYTES, Release, read_bundle
from tests.bundles import ALLOW, archive, manifest, public_file, release, signed


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


def test_a_nul_in_a_module_is_refused(tmp_path: Path) -> None:
    """The engine takes it for the end of the module: what stands behind would be no rule."""
    write(tmp_path, a__rego="package a\n\ndefault x := 1\n\0\nx := 2")
    with pytest.raises(PolicyInvalid, match=r"^a\.rego:4: a NUL byte"):
        read_bundle([tmp_path])


def test_two_modules_by_one_name_are_refused_and_two_data_files_are_merged(tmp_path: Path) -> None:
    for number, name in enumerate(("one", "two")):
        (tmp_path / name).mkdir()
        write(tmp_path / name, a__rego="package a", data__json=f'{{"{name}": {number}}}')
    with pytest.raises(PolicyInvalid, match=r"'a\.rego' is in two of policy\.paths"):
        read_bundle([tmp_path / "one", tmp_path / "two"])
    (tmp_path / "two" / "a.rego").rename(tmp_path / "two" / "b.rego")
    assert read_bundle([tmp_path / "one", tmp_path / "two"]).data_json == '{"one": 0, "two": 1}'


def test_data_defined_twice_is_refused(tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    one.mkdir()
    two.mkdir()
    write(one, a__rego="package a", data__json='{"x": 1}')
    write(two, data__json='{"x": 2}')
    with pytest.raises(PolicyInvalid, match="already defined"):
        read_bundle([one, two])


def test_documents_of_several_files_are_merged_and_keep_their_text(tmp_path: Path) -> None:
    (tmp_path / "lib").mkdir()
    write(tmp_path, a__rego="package a", data__json='{"lib": {"x": 1.50}, "\\u00e9": "\\u00e9"}')
    write(tmp_path / "lib", data__yaml="k: {z: [word]}\n", data__json='{"k": {"w": 2}}')
    assert read_bundle([tmp_path]).data_json == '{"lib": {"x": 1.50, "k": {"w": 2, "z": ["word"]}}, "\u00e9": "\u00e9"}'
    write(tmp_path / "lib", data__yml="k: {z: 1}")
    with pytest.raises(PolicyInvalid, match=r"data\.lib\.k\.z is already defined"):
        read_bundle([tmp_path])


def test_tests_are_read_where_they_are_asked_for(tmp_path: Path) -> None:
    write(tmp_path, a__rego="package a", a_test__rego="package a_test")
    assert read_bundle([tmp_path], tests=True).tests == (("a_test.rego", "package a_test"),)
    (tmp_path / "a_test.rego").write_bytes(b"\xff")
    assert read_bundle([tmp_path]).tests == ()


def test_tarball_is_the_same_bundle_as_its_directory(tmp_path: Path) -> None:
    files = {"a.rego": b"package a", "lib/data.json": b'{"x": 1}', "a_test.rego": b"package b", "README": b"no"}
    (tmp_path / "d" / "lib").mkdir(parents=True)
    for name, content in files.items():
        (tmp_path / "d" / name).write_bytes(content)
    (tmp_path / "b.tar.gz").write_bytes(archive({f"/{name}": content for name, content in files.items()}))
    assert read_bundle([tmp_path / "b.tar.gz"], tests=True) == read_bundle([tmp_path / "d"], tests=True)


@pytest.mark.parametrize("data", [b"{}", b'{"a": {"b": {"c": 1}}}', b'{"a": {"b": 1}, "sandboxd": {"limits": {}}}'])
def test_data_within_the_roots_may_stand_in_any_file(tmp_path: Path, data: bytes) -> None:
    """`opa build` gathers it in one `data.json`, which is there also where there is no data."""
    manifest_ = b'{"roots": ["sandboxd", "a/b"]}'
    bundle = tmp_path / "b.tar.gz"
    bundle.write_bytes(archive({".manifest": manifest_, "data.json": data, "policy.rego": ALLOW}))
    assert json.loads(read_bundle([bundle]).data_json) == json.loads(data)


def test_signed_bundle_says_which_release_it_is(tmp_path: Path) -> None:
    bundle = read_bundle([release(tmp_path / "b.tar.gz", 3)], public_file(tmp_path))
    assert bundle.revision == "r3"
    assert bundle.release is not None and bundle.release.version == 3
    assert bundle.release != Release(3, read_bundle([release(tmp_path / "b.tar.gz", 4)]).revision)
    assert read_bundle([tmp_path / "b.tar.gz"]).release is None


def test_with_a_key_nothing_but_one_signed_bundle_with_a_version_is_taken(tmp_path: Path) -> None:
    key = public_file(tmp_path)
    one, two = release(tmp_path / "one.tar.gz", 1), release(tmp_path / "two.tar.gz", 2)
    (tmp_path / "d").mkdir()
    write(tmp_path / "d", a__rego="package a")
    for paths in ([one, two], [tmp_path / "d"], [tmp_path / "d" / "a.rego"], []):
        with pytest.raises(PolicyInvalid, match="wants one signed bundle"):
            read_bundle(paths, key)
    one.write_bytes(archive({".manifest": manifest(1), "a.rego": ALLOW}))
    with pytest.raises(PolicyInvalid, match="is not signed"):
        read_bundle([one], key)
    one.write_bytes(archive(signed({"a.rego": ALLOW})))
    with pytest.raises(PolicyInvalid, match="does not say which release it is"):
        read_bundle([one], key)
    one.write_bytes(archive(signed({".manifest": manifest(1), "a.rego": ALLOW}, "ec")))
    with pytest.raises(PolicyInvalid, match=r"not of policy\.verification_key"):
        read_bundle([one], key)


@pytest.mark.parametrize(
    ("files", "why"),
    [
        ({".manifest": b"{}", "lib/.manifest": b"{}"}, r"'lib/\.manifest' is not at the bundle's root"),
        ({"lib/.signatures.json": b"{}"}, "is not at the bundle's root"),
        ({".manifest": b'{"roots": ["lib"]}'}, r"outside of the manifest's roots \('lib',\)"),
        ({".manifest": b'{"roots": ["sandboxd"]}', "data.json": b'{"x": 1}'}, "defines data.x, outside"),
        ({".manifest": b'{"roots": ["sandboxd"]}', "lib/data.json": b"{}"}, "defines data.lib, outside"),
        (
            {".manifest": b'{"roots": ["sandboxd", "a/b"]}', "data.json": b'{"a": {"c": 1}}'},
            "defines data.a.c, outside",
        ),
        ({"policy.wasm": b""}, "nothing that the embedded engine runs"),
        ({"patch.json": b"{}"}, "nothing that the embedded engine runs"),
        ({".manifest.pb": b""}, "nothing that the embedded engine runs"),
    ],
)
def test_tarball_that_holds_what_it_must_not_is_refused(tmp_path: Path, files: dict[str, bytes], why: str) -> None:
    (tmp_path / "b.tar.gz").write_bytes(archive({"a.rego": ALLOW, **files}))
    with pytest.raises(PolicyInvalid, match=why):
        read_bundle([tmp_path / "b.tar.gz"])


def test_tarball_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    with pytest.raises(PolicyInvalid, match=r"cannot read policy '.*absent\.tar\.gz': No such file"):
        read_bundle([tmp_path / "absent.tar.gz"])
    (tmp_path / "link.tar.gz").symlink_to(release(tmp_path / "b.tar.gz", 1))
    with pytest.raises(PolicyInvalid, match="cannot read policy"):
        read_bundle([tmp_path / "link.tar.gz"])
    (tmp_path / "d.tar.gz").mkdir()
    with pytest.raises(PolicyInvalid, match=r"is not a regular file|Is a directory"):
        read_bundle([tmp_path / "d.tar.gz"])


def test_file_that_is_too_large_is_refused(tmp_path: Path) -> None:
    for name in ("a.rego", "b.tar.gz"):
        with (tmp_path / name).open("wb") as file:
            file.truncate(MAX_BYTES + 1)
        with pytest.raises(PolicyInvalid, match=f"{name} is over {MAX_BYTES} bytes"):
            read_bundle([tmp_path / name])


def test_bundles_of_two_revisions_are_not_one_policy(tmp_path: Path) -> None:
    paths = []
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        write(tmp_path / name, **{f"{name}__rego": f"package {name}"})
        (tmp_path / name / ".manifest").write_text(f'{{"revision": "{name}"}}')
        paths.append(tmp_path / name)
    with pytest.raises(PolicyInvalid, match=r"revisions \['one', 'two'\] are not the one"):
        read_bundle(paths)
    (tmp_path / "two" / ".manifest").write_text('{"revision": "one"}')
    assert read_bundle(paths).revision == "one"
