"""Verifies the `.signatures.json` of an OPA bundle: one JWT that names every file with its hash.

Believes nothing of a bundle, not even the token's own word for how it is signed: the key says which algorithms there
are. Imported where a key is configured; called by `rego_bundle`.
https://www.openpolicyagent.org/docs/management-bundles#signing
"""

import hashlib
import os
import stat
from collections.abc import Mapping
from pathlib import Path

import jwt
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from sandboxd.errors import PolicyInvalid
from sandboxd.policy import bundle_data

SIGNATURES = ".signatures.json"
MAX_KEY_BYTES = 64 * 1024
MIN_RSA_BITS = 2048
_CURVES = {"secp256r1": "ES256", "secp384r1": "ES384", "secp521r1": "ES512"}
_RSA = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512")

PublicKey = rsa.RSAPublicKey | ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey


def read_key(path: Path) -> PublicKey:
    """A public key in PEM. PolicyInvalid if it cannot be read or is none that a bundle may be signed with."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        with os.fdopen(descriptor, "rb") as file:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise PolicyInvalid(f"policy.verification_key {str(path)!r} is not a regular file")
            text = file.read(MAX_KEY_BYTES)
    except OSError as error:
        raise PolicyInvalid(f"cannot read policy.verification_key {str(path)!r}: {error.strerror}") from error
    try:
        key = load_pem_public_key(text)
    except (ValueError, UnsupportedAlgorithm) as error:
        raise PolicyInvalid(f"policy.verification_key {str(path)!r} is no public key in PEM; give that one") from error
    if isinstance(key, rsa.RSAPublicKey) and key.key_size < MIN_RSA_BITS:
        raise PolicyInvalid(
            f"policy.verification_key {str(path)!r} has {key.key_size} bits; take {MIN_RSA_BITS} or more"
        )
    if not isinstance(key, PublicKey) or (isinstance(key, ec.EllipticCurvePublicKey) and key.curve.name not in _CURVES):
        raise PolicyInvalid(f"policy.verification_key {str(path)!r} is neither RSA, nor NIST P, nor Ed25519")
    return key


def verify(archive: str, files: Mapping[str, bytes], key: PublicKey) -> None:
    """PolicyInvalid unless the key signed exactly these files. `files` has the signature among them."""
    signed = _signed(archive, files, key)
    present = files.keys() - {SIGNATURES}
    if absent := sorted(signed.keys() - present):
        raise PolicyInvalid(f"{archive}: {absent[0]!r} is signed, but not there; build the bundle anew")
    for name in sorted(present):
        if name not in signed:
            raise PolicyInvalid(f"{archive}: {name!r} is not covered by the signature; build the bundle anew")
        if _hash(name, files[name]) != signed[name]:
            raise PolicyInvalid(f"{archive}: {name!r} is not the file that was signed; build the bundle anew")


def _signed(archive: str, files: Mapping[str, bytes], key: PublicKey) -> dict[str, str]:
    """Name and hash of each file that the token vouches for."""
    if SIGNATURES not in files:
        raise PolicyInvalid(f"{archive}: is not signed; policy.verification_key wants `opa build --signing-key`")
    match bundle_data.parse(f"{archive}: {SIGNATURES}", files[SIGNATURES]):
        case {"signatures": [str(token)], **rest} if rest.get("plugin", "_default") == "_default":
            pass
        case _:
            raise PolicyInvalid(f"{archive}: {SIGNATURES} does not hold exactly one token; build the bundle anew")
    try:
        payload = jwt.PyJWS().decode(token, key, algorithms=_algorithms(key))
    except jwt.InvalidTokenError as error:
        raise PolicyInvalid(f"{archive}: the signature is not of policy.verification_key: {error}") from error
    match bundle_data.parse(f"{archive}: signature", payload):
        case {"files": [*entries], **rest} if not rest.get("scope"):
            return dict(_entry(archive, entry) for entry in entries)
        case _:
            raise PolicyInvalid(f"{archive}: the signature names no files, or a scope; sign the bundle without one")


def _entry(archive: str, entry: object) -> tuple[str, str]:
    match entry:
        case {"name": str(name), "hash": str(digest), "algorithm": "SHA-256"}:
            return name, digest
        case _:
            raise PolicyInvalid(f"{archive}: the signature does not give name and SHA-256 of each file: {entry!r}")


def _algorithms(key: PublicKey) -> tuple[str, ...]:
    match key:
        case rsa.RSAPublicKey():
            return _RSA
        case ec.EllipticCurvePublicKey():
            return (_CURVES[key.curve.name],)
        case _:
            return ("EdDSA",)


def _hash(name: str, content: bytes) -> str:
    """Of a structured file what it says is signed, of any other its bytes."""
    base = name.rpartition("/")[2]
    if base in ("data.json", "data.yaml", "data.yml", ".manifest"):
        return bundle_data.sha256(bundle_data.parse(name, content))
    return hashlib.sha256(content).hexdigest()
