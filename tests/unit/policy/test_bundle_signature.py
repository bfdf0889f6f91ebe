"""Signatures of bundles that are right but for one thing; that right ones of `opa` are taken is a contract test."""

import base64
import hashlib
import hmac
import json
import os
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa, x25519
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from sandboxd.errors import PolicyInvalid
from sandboxd.policy.bundle_signature import SIGNATURES, PublicKey, read_key, verify
from tests.bundles import (
    ALLOW,
    DENY,
    claims,
    manifest,
    private_key,
    private_pem,
    public_file,
    public_pem,
    signed,
    token,
)

FILES = {".manifest": manifest(1), "policy.rego": ALLOW, "lib/data.json": b'{"a": 1.50}', "README.md": b"#"}


@pytest.fixture
def key(tmp_path: Path) -> PublicKey:
    return read_key(public_file(tmp_path))


def with_token(text: str) -> dict[str, bytes]:
    return {**FILES, SIGNATURES: json.dumps({"signatures": [text]}).encode()}


@pytest.mark.parametrize("kind", ["rsa", "ec", "ed"])
def test_signed_files_are_taken_with_each_kind_of_key(tmp_path: Path, kind: str) -> None:
    verify("b", signed(FILES, kind), read_key(public_file(tmp_path, kind)))


def test_structured_file_is_signed_by_what_it_says_and_any_other_by_its_bytes(key: PublicKey) -> None:
    files = signed(FILES)
    verify("b", {**files, "lib/data.json": b'{ "a":1.50 }\n'}, key)
    with pytest.raises(PolicyInvalid, match=r"'lib/data\.json' is not the file that was signed"):
        verify("b", {**files, "lib/data.json": b'{"a": 1.5}'}, key)
    with pytest.raises(PolicyInvalid, match=r"'README\.md' is not the file that was signed"):
        verify("b", {**files, "README.md": b"# "}, key)


def test_changed_added_and_stripped_files_are_refused(key: PublicKey) -> None:
    files = signed(FILES)
    with pytest.raises(PolicyInvalid, match=r"'policy\.rego' is not the file that was signed"):
        verify("b", {**files, "policy.rego": DENY}, key)
    with pytest.raises(PolicyInvalid, match=r"'notes\.txt' is not covered"):
        verify("b", {**files, "notes.txt": b""}, key)
    del files["policy.rego"]
    with pytest.raises(PolicyInvalid, match=r"'policy\.rego' is signed, but not there"):
        verify("b", files, key)


def test_signature_of_other_files_is_refused(key: PublicKey) -> None:
    others = signed({**FILES, "policy.rego": DENY})
    with pytest.raises(PolicyInvalid, match="is not the file that was signed"):
        verify("b", {**FILES, SIGNATURES: others[SIGNATURES]}, key)


def test_signature_of_another_key_is_refused(key: PublicKey) -> None:
    other = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    with pytest.raises(PolicyInvalid, match=r"not of policy\.verification_key"):
        verify("b", with_token(token({"files": claims(FILES)}, other)), key)


def test_token_does_not_choose_how_it_is_verified(key: PublicKey) -> None:
    """Neither with the public key taken for a secret, nor without any."""
    head, payload, _ = token({"files": claims(FILES)}, private_key("rsa")).split(".")
    none = "eyJhbGciOiJub25lIiwidHlwIjoiSldUIn0"
    for forged in (f"{none}.{payload}.", f"{head}.{payload}.", _hmac(payload)):
        with pytest.raises(PolicyInvalid, match=r"not of policy\.verification_key"):
            verify("b", with_token(forged), key)


def _hmac(payload: str) -> str:
    head = base64.urlsafe_b64encode(b'{"alg":"HS256","typ":"JWT"}').rstrip(b"=").decode()
    tag = hmac.new(public_pem(private_key("rsa")), f"{head}.{payload}".encode(), hashlib.sha256).digest()
    return f"{head}.{payload}.{base64.urlsafe_b64encode(tag).rstrip(b'=').decode()}"


@pytest.mark.parametrize(
    ("signatures", "why"),
    [
        (None, "is not signed"),
        (b"{", "not JSON"),
        (b"[]", "exactly one token"),
        (b'{"signatures": []}', "exactly one token"),
        (b'{"signatures": ["a", "b"]}', "exactly one token"),
        (b'{"signatures": [{}]}', "exactly one token"),
        (b'{"signatures": ["a"], "plugin": "mine"}', "exactly one token"),
        (b'{"signatures": ["a"], "signatures": ["a"]}', "there twice"),
        (b'{"signatures": ["no.token"]}', "not of policy.verification_key"),
    ],
)
def test_signatures_that_are_none_are_refused(key: PublicKey, signatures: bytes | None, why: str) -> None:
    with pytest.raises(PolicyInvalid, match=why):
        verify("b", FILES if signatures is None else {**FILES, SIGNATURES: signatures}, key)


@pytest.mark.parametrize(
    ("payload", "why"),
    [
        ([], "names no files"),
        ({}, "names no files"),
        ({"files": claims(FILES), "scope": "write"}, "or a scope"),
        ({"files": [{"name": "a", "hash": "0"}]}, "name and SHA-256"),
        ({"files": [{"name": "a", "hash": "0", "algorithm": "MD5"}]}, "name and SHA-256"),
        ({"files": ["a"]}, "name and SHA-256"),
    ],
)
def test_signed_payload_that_says_something_else_is_refused(key: PublicKey, payload: object, why: str) -> None:
    with pytest.raises(PolicyInvalid, match=why):
        verify("b", with_token(token(payload, private_key("rsa"))), key)


def test_key_that_cannot_verify_is_refused(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("no key")
    (tmp_path / "private").write_bytes(private_pem(private_key("rsa")))
    small = rsa.generate_private_key(public_exponent=65537, key_size=1024)
    (tmp_path / "small").write_bytes(public_pem(small))
    (tmp_path / "curve").write_bytes(public_pem(ec.generate_private_key(ec.SECP256K1())))
    exchange = x25519.X25519PrivateKey.generate().public_key()
    (tmp_path / "exchange").write_bytes(exchange.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    os.mkfifo(tmp_path / "pipe")
    for name, why in (
        ("text", "no public key in PEM"),
        ("private", "no public key in PEM"),
        ("small", "1024 bits; take 2048"),
        ("curve", "neither RSA, nor"),
        ("exchange", "neither RSA, nor"),
        ("absent", "No such file"),
        (".", "Is a directory"),
        ("pipe", "is not a regular file"),
    ):
        with pytest.raises(PolicyInvalid, match=why):
            read_key(tmp_path / name)
