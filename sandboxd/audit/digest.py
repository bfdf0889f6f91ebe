"""Digests of what is cut or taken out of a record, so that equal values can be told without being told.

What may be secret is digested under a key of this node's: whoever reads the record cannot try values out. The key
follows from the one that signs checkpoints, and never leaves the daemon. Made by `audit.recorder`; used by `span`,
`redaction` and `audit.line`.
"""

import hashlib
import hmac
from collections.abc import Callable
from dataclasses import dataclass

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from sandboxd.audit.key import SigningKey

_PURPOSE = b"sandboxd audit digests v1"


@dataclass(frozen=True, slots=True)
class Digest:
    """`name` is what a field that holds one ends in; `of` gives hex."""

    name: str
    of: Callable[[bytes], str]

    def of_text(self, text: str) -> str:
        return self.of(text.encode("utf-8", "surrogatepass"))


PLAIN = Digest("sha256", lambda data: hashlib.sha256(data).hexdigest())  # of what is no secret


def keyed(key: SigningKey) -> Digest:
    """HMAC-SHA256 (RFC 2104) under a key derived by HKDF (RFC 5869)."""
    derived = HKDF(SHA256(), 32, salt=None, info=_PURPOSE).derive(key.private.private_bytes_raw())
    return Digest("hmac", lambda data: hmac.digest(derived, data, "sha256").hex())
