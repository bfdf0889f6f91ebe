"""The key: made once, private, and refused when it may not be the daemon's own."""

import os
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

from sandboxd.audit.key import KEYS, PRIVATE, PUBLIC, key_id, open_key, parse_public, public_pem
from sandboxd.errors import AuditUnavailable


def private(state: Path) -> Path:
    return state / KEYS / PRIVATE


def test_key_is_made_once_private_and_its_public_half_exported(tmp_path: Path) -> None:
    key = open_key(tmp_path)
    assert {path.name: path.stat().st_mode & 0o7777 for path in (tmp_path / KEYS).iterdir()} == {
        PRIVATE: 0o600,
        PUBLIC: 0o644,
    }
    assert (tmp_path / KEYS).stat().st_mode & 0o7777 == 0o700
    assert open_key(tmp_path).key_id == key.key_id == key_id(parse_public(public_pem(tmp_path)))
    parse_public(public_pem(tmp_path)).verify(key.private.sign(b"x"), b"x")


def test_two_nodes_have_two_keys(tmp_path: Path) -> None:
    assert open_key(tmp_path / "a").key_id != open_key(tmp_path / "b").key_id


def test_daemons_that_start_at_once_get_one_key(tmp_path: Path) -> None:
    found: list[str] = []
    threads = [threading.Thread(target=lambda: found.append(open_key(tmp_path).key_id)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(found), len(set(found))) == (8, 1)


def test_a_start_that_was_cut_short_is_no_obstacle(tmp_path: Path) -> None:
    (tmp_path / KEYS).mkdir(mode=0o700)
    (tmp_path / KEYS / ".audit.pem").write_bytes(b"half a key")
    key = open_key(tmp_path)
    (tmp_path / KEYS / PUBLIC).unlink()
    assert open_key(tmp_path).key_id == key.key_id
    assert key_id(parse_public(public_pem(tmp_path))) == key.key_id


def _other_kind() -> bytes:
    return generate_private_key(SECP256R1()).private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def _with_a_password() -> bytes:
    locked = BestAvailableEncryption(b"secret")
    return Ed25519PrivateKey.generate().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, locked)


def _replaced() -> bytes:
    return Ed25519PrivateKey.generate().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def _pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


WRONG: dict[str, tuple[Callable[[Path], object], str]] = {
    "readable by the group": (lambda path: path.chmod(0o640), "has mode 0640.*give it to uid"),
    "writable by all": (lambda path: path.chmod(0o602), "has mode 0602"),
    "empty": (lambda path: path.write_bytes(b""), "no private key in PEM; put back"),
    "damaged": (lambda path: path.write_bytes(path.read_bytes()[:-40]), "no private key in PEM"),
    "of another kind": (lambda path: path.write_bytes(_other_kind()), "another kind than Ed25519"),
    "locked": (lambda path: path.write_bytes(_with_a_password()), "no private key in PEM"),
    "replaced": (lambda path: path.write_bytes(_replaced()), "not the public half of 'audit.pem'"),
    "gone": (lambda path: path.unlink(), "is gone and its public half is there; put it back"),
    "a link": (lambda path: path.symlink_to(path.rename(path.with_name("elsewhere"))), "cannot be used"),
    "a pipe": (_pipe, "cannot be used"),
}


@pytest.mark.parametrize("kind", WRONG)
def test_a_key_that_is_wrong_is_refused_and_left_as_it_is(tmp_path: Path, kind: str) -> None:
    open_key(tmp_path)
    spoil, message = WRONG[kind]
    spoil(private(tmp_path))
    before = private(tmp_path).read_bytes() if private(tmp_path).is_file() else None
    with pytest.raises(AuditUnavailable, match=message) as caught:
        open_key(tmp_path)
    assert caught.value.reason == "audit_key_invalid"
    assert (private(tmp_path).read_bytes() if private(tmp_path).is_file() else None) == before


def test_a_key_of_somebody_else_is_refused(tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("giving a file away needs root")
    open_key(tmp_path)
    os.chown(private(tmp_path), 12345, 12345)
    with pytest.raises(AuditUnavailable, match="belongs to uid 12345"):
        open_key(tmp_path)


def test_what_is_no_public_key_is_told(tmp_path: Path) -> None:
    other = generate_private_key(SECP256R1()).public_key()
    with pytest.raises(ValueError, match="another kind"):
        parse_public(other.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    with pytest.raises(ValueError, match="no public key"):
        parse_public(b"-----BEGIN PUBLIC KEY-----\n")
    open_key(tmp_path)
    (tmp_path / KEYS / PUBLIC).unlink()
    with pytest.raises(FileNotFoundError):
        public_pem(tmp_path)


def test_what_stands_beside_the_public_key_is_not_given_out(tmp_path: Path) -> None:
    open_key(tmp_path)
    pem = public_pem(tmp_path)
    (tmp_path / KEYS / PUBLIC).write_bytes(pem + b"\x1b[2J")
    assert public_pem(tmp_path) == pem
