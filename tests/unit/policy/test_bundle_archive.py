"""The tarball reader, on archives as the usual programs write them and as nobody should."""

import gzip
import io
import random
import tarfile
from collections.abc import Callable

import pytest

from sandboxd.errors import PolicyInvalid
from sandboxd.policy.bundle_archive import MAX_BYTES, MAX_ENTRIES, unpack

Change = Callable[[tarfile.TarInfo], None]


def entry(name: str, content: bytes = b"", kind: bytes = tarfile.REGTYPE) -> tuple[tarfile.TarInfo, bytes]:
    info = tarfile.TarInfo(name)
    info.type, info.size = kind, len(content)
    return info, content


def tar(*entries: tuple[tarfile.TarInfo, bytes], form: int = tarfile.USTAR_FORMAT) -> bytes:
    target = io.BytesIO()
    with tarfile.open(fileobj=target, mode="w", format=form) as writer:
        for info, content in entries:
            writer.addfile(info, io.BytesIO(content))
    return target.getvalue()


def packed(*entries: tuple[tarfile.TarInfo, bytes], form: int = tarfile.USTAR_FORMAT) -> bytes:
    return gzip.compress(tar(*entries, form=form))


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
@pytest.mark.parametrize("before", ["", "/", "./"])
def test_files_come_out_as_they_went_in_whoever_packed_them(form: int, before: str) -> None:
    long, odd = "lib/" + "n" * 120 + ".rego", "lib/\u00e9.rego"
    files = {"a.rego": b"package a", long: b"x" * 1000, odd: b"", "z/data.json": b"{}"}
    if form == tarfile.USTAR_FORMAT:
        del files[long], files[odd]
        files["p" * 100 + "/" + "n" * 90] = b"split"
    entries = [entry(before + name, content) for name, content in files.items()]
    directories = [entry(before or "./", kind=tarfile.DIRTYPE), entry(f"{before}lib/", kind=tarfile.DIRTYPE)]
    assert dict(unpack("b", packed(*directories, *entries, form=form))) == files


@pytest.mark.parametrize(
    ("kind", "what"),
    [
        (tarfile.LNKTYPE, "a hard link"),
        (tarfile.SYMTYPE, "a symbolic link"),
        (tarfile.CHRTYPE, "a device"),
        (tarfile.BLKTYPE, "a device"),
        (tarfile.FIFOTYPE, "a pipe"),
        (tarfile.CONTTYPE, "of type b'7'"),
        (tarfile.GNUTYPE_SPARSE, "of type b'S'"),
    ],
)
def test_what_is_no_plain_file_is_refused(kind: bytes, what: str) -> None:
    link, _ = entry("a.rego", kind=kind)
    link.linkname = "/etc/shadow"
    with pytest.raises(PolicyInvalid, match=f"'a.rego' is {what}"):
        unpack("b", packed((link, b"")))


@pytest.mark.parametrize(
    "name", ["../a.rego", "a/../../b", "//etc/passwd", "/../a", "a//b", "a/./b", "a\\b", "a\nb", "a\x1bb", "a/" * 300]
)
@pytest.mark.parametrize("form", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_name_that_is_no_path_below_the_root_is_refused(name: str, form: int) -> None:
    with pytest.raises(PolicyInvalid, match=r"is not a path below|has no name of its own"):
        unpack("b", packed(entry(name, b"x"), form=form))


@pytest.mark.parametrize("name", ["", "/", "./", "a/"])
def test_file_without_a_name_of_its_own_is_refused(name: str) -> None:
    whole = bytearray(tar(entry("x" * 10, b"content")))
    whole[:100] = name.encode().ljust(100, b"\0")
    _sum(whole)
    with pytest.raises(PolicyInvalid, match="no name of its own"):
        unpack("b", gzip.compress(bytes(whole)))


def test_name_that_is_there_twice_is_refused_however_it_is_written() -> None:
    for second in ("a.rego", "/a.rego", "./a.rego"):
        with pytest.raises(PolicyInvalid, match=r"'a\.rego' is there twice"):
            unpack("b", packed(entry("a.rego", b"one"), entry(second, b"two")))


def test_archive_that_unpacks_to_too_much_is_refused_before_it_has() -> None:
    bomb = gzip.compress(b"\0" * (MAX_BYTES * 8))
    assert len(bomb) < MAX_BYTES // 100
    with pytest.raises(PolicyInvalid, match="unpacks to over"):
        unpack("b", bomb)


def test_archive_with_too_many_entries_is_refused() -> None:
    fits = packed(*(entry(str(number)) for number in range(MAX_ENTRIES - 1)))
    assert len(unpack("b", fits)) == MAX_ENTRIES - 1
    with pytest.raises(PolicyInvalid, match="over 4096 entries"):
        unpack("b", packed(*(entry(str(number)) for number in range(MAX_ENTRIES))))


def test_what_is_not_whole_or_not_alone_is_refused() -> None:
    whole = packed(entry("a.rego", b"package a"))
    for broken, why in (
        (b"", "ends too early"),
        (b"no archive", "not a gzip file"),
        (whole[:-9], "ends too early"),
        (whole + whole, "behind its end"),
        (gzip.compress(b"x" * 1024), "no tar header at byte 0"),
        (gzip.compress(tar(entry("a", b"x" * 600))[:1100]), "cut off"),
        (gzip.compress(tar(entry("a")) + b"more"), "something stands behind its end"),
    ):
        with pytest.raises(PolicyInvalid, match=why):
            unpack("b", broken)


def test_file_hidden_behind_a_damaged_header_is_not_passed_over() -> None:
    """The library's own reader ends there without a word."""
    first, second = entry("a.rego", b"package a"), entry("b.rego", b"package b")
    whole = bytearray(tar(first, second))
    whole[1024 + 150] ^= 1
    with tarfile.open(fileobj=io.BytesIO(bytes(whole))) as control:
        assert control.getnames() == ["a.rego"]
    with pytest.raises(PolicyInvalid, match="no tar header at byte 1024"):
        unpack("b", gzip.compress(bytes(whole)))


@pytest.mark.parametrize(
    "size", [b"\x80" + b"\0" * 10 + b"\x05", b"\xff" * 12, b"-0000000001\0", b"77777777777\0", b" " * 12]
)
def test_size_that_is_no_plain_number_is_refused(size: bytes) -> None:
    whole = bytearray(tar(entry("a.rego", b"12345")))
    whole[124:136] = size
    _sum(whole)
    with pytest.raises(PolicyInvalid, match=r"no tar header|cut off"):
        unpack("b", gzip.compress(bytes(whole)))


@pytest.mark.parametrize(
    ("headers", "why"),
    [
        ({"size": "1"}, "sets b'size'"),
        ({"linkpath": "/etc/shadow"}, "sets b'linkpath'"),
        ({"GNU.sparse.major": "1"}, "sets b'GNU.sparse.major'"),
        ({"path": "../x"}, "not a path below"),
    ],
)
def test_extended_header_that_changes_an_entry_is_refused(headers: dict[str, str], why: str) -> None:
    info, content = entry("a.rego", b"package a")
    info.pax_headers = headers
    with pytest.raises(PolicyInvalid, match=why):
        unpack("b", packed((info, content), form=tarfile.PAX_FORMAT))


@pytest.mark.parametrize(
    "records",
    [b"0 path=x\n", b"path=x\n", b"x path=x\n", b"99 path=x\n", b"1 path=x\n", b"00000009 path=x\n", b" path=x\n"],
)
def test_damaged_extended_header_is_refused(records: bytes) -> None:
    with pytest.raises(PolicyInvalid, match="an extended header is damaged"):
        unpack("b", packed(entry("x", records, tarfile.XHDTYPE), entry("a.rego", b"package a")))


def test_extended_header_that_says_when_and_who_is_passed_over() -> None:
    info, content = entry("a.rego", b"package a")
    info.pax_headers = {"mtime": "1.5", "uname": "\u00e9", "comment": "c"}
    assert unpack("b", packed((info, content), form=tarfile.PAX_FORMAT)) == (("a.rego", b"package a"),)


def test_whatever_is_damaged_is_refused_or_read_but_nothing_else() -> None:
    """With a seed of its own, so that what fails fails again."""
    chance = random.Random(20)
    for form in (tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT):
        info, content = entry("lib/" + "n" * 90 + ".rego", b"package a")
        whole = tar(entry("a.rego", b"package a" * 80), (info, content), form=form)
        for _ in range(400):
            damaged = bytearray(whole)
            for _ in range(chance.randint(1, 4)):
                damaged[chance.randrange(len(damaged))] = chance.randrange(256)
            for block in range(0, len(damaged), 512):
                if chance.random() < 0.7:
                    _sum(damaged, block)
            try:
                unpack("b", gzip.compress(bytes(damaged), 1))
            except PolicyInvalid as refused:
                assert str(refused).startswith("b: ")


def _sum(whole: bytearray, at: int = 0) -> None:
    """Make the checksum of the header there right."""
    header = whole[at : at + 512]
    summed = sum(header[:148]) + 8 * ord(" ") + sum(header[156:])
    whole[at + 148 : at + 156] = f"{summed:06o}\0 ".encode()
