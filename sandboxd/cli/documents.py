"""`sandboxd audit show` and `key`: out of the state directory, a document that events name, and the journal's key."""

import json
import re
from pathlib import Path

from sandboxd.audit.key import KEYS, public_pem
from sandboxd.audit.store import DOCUMENTS, find
from sandboxd.cli.mistake import Mistake

_DIGEST = re.compile(r"[0-9a-f]{64}")


def document(state_dir: Path, digest: str) -> str:
    """Its text; `Mistake` if it cannot be had. What a terminal could take for a command is escaped as JSON does it."""
    if not _DIGEST.fullmatch(digest):
        raise Mistake(f"{digest!r} is no SHA-256; give the 64 digits of an event's input_sha256")
    directory = state_dir / DOCUMENTS
    try:
        found = find(directory, digest)
    except ValueError as error:
        raise Mistake(str(error)) from error
    except OSError as error:
        raise Mistake(_why(error, directory)) from error
    text = found.decode(errors="backslashreplace")
    return re.sub(r"[^ -~\n]", lambda character: json.dumps(character[0])[1:-1], text)


def public_key(state_dir: Path) -> str:
    """The public half of the journal's key, PEM; `Mistake` if it cannot be had."""
    try:
        return public_pem(state_dir).decode("ascii")
    except ValueError as error:
        raise Mistake(f"the public key in {str(state_dir / KEYS)!r} is damaged: {error}") from error
    except FileNotFoundError as error:
        raise Mistake(f"no key in {str(state_dir / KEYS)!r}; look whether --config is the node's") from error
    except OSError as error:
        raise Mistake(_why(error, state_dir / KEYS)) from error


def _why(error: OSError, directory: Path) -> str:
    match error:
        case FileNotFoundError():
            return f"{error.strerror}: {error.filename!r}; look whether --config is the node's and its pack still there"
        case PermissionError():
            return f"cannot read {str(directory)!r}: {error.strerror}; read it as root or as the daemon's user"
        case _:
            return f"cannot read {str(directory)!r}: {error.strerror}"
