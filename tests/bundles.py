"""Bundle tarballs for tests, packed and signed here, so that each part of one can be wrong; `opa` makes right ones."""

import functools
import gzip
import hashlib
import io
import json
import tarfile
from collections.abc import Mapping
from pathlib import Path

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from sandboxd.policy import bundle_data
from sandboxd.policy.bundle_signature import SIGNATURES

PrivateKey = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey
ALLOW = b"package sandboxd\n\nimport rego.v1\n\ndecision := true\n"
DENY = b"package sandboxd\n\nimport rego.v1\n\ndecision := false\n"


@functools.cache
def private_key(kind: str) -> PrivateKey:
    """The same one in all of a run: an RSA key takes a while."""
    match kind:
        case "rsa":
            return rsa.generate_private_key(public_exponent=65537, key_size=2048)
        case "ec":
            return ec.generate_private_key(ec.SECP256R1())
        case _:
            return ed25519.Ed25519PrivateKey.generate()


def public_pem(key: PrivateKey) -> bytes:
    return key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def private_pem(key: PrivateKey) -> bytes:
    form = PrivateFormat.PKCS8 if isinstance(key, ed25519.Ed25519PrivateKey) else PrivateFormat.TraditionalOpenSSL
    return key.private_bytes(Encoding.PEM, form, NoEncryption())


def public_file(directory: Path, kind: str = "rsa") -> Path:
    path = directory / f"{kind}.pub"
    path.write_bytes(public_pem(private_key(kind)))
    return path


def manifest(version: int, revision: str = "") -> bytes:
    return json.dumps({"revision": revision or f"r{version}", "metadata": {"sandboxd": {"version": version}}}).encode()


def archive(files: Mapping[str, bytes]) -> bytes:
    target = io.BytesIO()
    with tarfile.open(fileobj=target, mode="w") as writer:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            writer.addfile(info, io.BytesIO(content))
    return gzip.compress(target.getvalue())


def claims(files: Mapping[str, bytes]) -> list[dict[str, str]]:
    """What a signature says of each file."""
    return [{"name": name, "hash": _hash(name, content), "algorithm": "SHA-256"} for name, content in files.items()]


def token(payload: object, key: PrivateKey, algorithm: str = "RS256") -> str:
    return jwt.PyJWS().encode(json.dumps(payload).encode(), key, algorithm)


def signed(files: Mapping[str, bytes], kind: str = "rsa") -> dict[str, bytes]:
    """The files and their signature."""
    algorithm = {"rsa": "RS256", "ec": "ES256", "ed": "EdDSA"}[kind]
    signature = token({"files": claims(files)}, private_key(kind), algorithm)
    return {**files, SIGNATURES: json.dumps({"signatures": [signature]}).encode()}


def release(path: Path, version: int, policy: bytes = ALLOW) -> Path:
    """A signed bundle on the disk."""
    path.write_bytes(archive(signed({".manifest": manifest(version), "policy.rego": policy})))
    return path


def _hash(name: str, content: bytes) -> str:
    if name.rpartition("/")[2] in ("data.json", "data.yaml", ".manifest"):
        return bundle_data.sha256(bundle_data.parse(name, content))
    return hashlib.sha256(content).hexdigest()
