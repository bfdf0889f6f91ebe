"""The `.manifest` of a bundle: its revision, the part of `data` that it may define, and which release it is.

Never passes over a key: what a bundle asks of its reader and this one cannot do is refused. Called by `rego_bundle`.
https://www.openpolicyagent.org/docs/management-bundles#bundle-file-format
"""

from collections.abc import Iterable
from dataclasses import dataclass

from sandboxd.errors import PolicyInvalid
from sandboxd.policy import bundle_data

MANIFEST = ".manifest"
EVERYTHING = ("",)
MAX_REVISION_CHARS = 256  # it is on every record of a decision
MAX_VERSION = (1 << 63) - 1  # what the API and other readers of the record can hold
_KEYS = frozenset({"revision", "roots", "rego_version", "file_rego_versions", "metadata", "wasm"})


@dataclass(frozen=True, slots=True)
class Manifest:
    """`version` counts the releases of a signed bundle (`metadata.sandboxd.version`), 0 where there is none."""

    revision: str = ""
    roots: tuple[str, ...] = EVERYTHING
    version: int = 0


def parse(name: str, content: bytes) -> Manifest:
    """PolicyInvalid, naming the file, for what is no manifest or asks for what the embedded engine does not have."""
    body = bundle_data.plain(bundle_data.parse(name, content))
    if not isinstance(body, dict):
        raise PolicyInvalid(f"{name}: not an object")
    if unknown := sorted(body.keys() - _KEYS):
        raise PolicyInvalid(f"{name}: unknown key {unknown[0]!r}; known are {sorted(_KEYS)}")
    revision, roots = body.get("revision", ""), body.get("roots", list(EVERYTHING))
    if not isinstance(revision, str):
        raise PolicyInvalid(f"{name}: revision {revision!r} is not a string")
    if len(revision) > MAX_REVISION_CHARS:
        raise PolicyInvalid(
            f"{name}: a revision of {len(revision)} characters; give one of {MAX_REVISION_CHARS} or less"
        )
    if not (isinstance(roots, list) and all(isinstance(root, str) for root in roots)):
        raise PolicyInvalid(f"{name}: roots {roots!r} is not a list of strings")
    for version in (body.get("rego_version", 1), *_versions(name, body.get("file_rego_versions", {}))):
        if version != 1 or isinstance(version, bool):
            raise PolicyInvalid(f"{name}: Rego version {version!r} is not 1; rewrite it with `opa fmt --rego-v1`")
    if body.get("wasm"):
        raise PolicyInvalid(f"{name}: the embedded engine runs no WebAssembly; build the bundle with --target rego")
    return Manifest(revision, tuple(root.strip("/") for root in roots), _release(name, body.get("metadata", {})))


def check_roots(archive: str, manifest: Manifest, defined: Iterable[tuple[str, tuple[str, ...]]]) -> None:
    """PolicyInvalid unless every place (file, and path below `data`) is below a root of the manifest."""
    roots = [tuple(root.split("/")) if root else () for root in manifest.roots]
    for file, path in defined:
        if not any(path[: len(root)] == root for root in roots):
            raise PolicyInvalid(
                f"{archive}: {file} defines data.{'.'.join(path)}, outside of the manifest's roots {manifest.roots!r}"
            )


def _versions(name: str, value: object) -> list[object]:
    if not isinstance(value, dict):
        raise PolicyInvalid(f"{name}: file_rego_versions {value!r} is not an object")
    return list(value.values())


def _release(name: str, metadata: object) -> int:
    match metadata:
        case {"sandboxd": {"version": int(version), **rest}} if 0 < version <= MAX_VERSION and version is not True:
            if rest:
                raise PolicyInvalid(
                    f"{name}: unknown key {min(map(str, rest))!r} in metadata.sandboxd; known is 'version'"
                )
            return version
        case {"sandboxd": other}:
            raise PolicyInvalid(
                f"{name}: metadata.sandboxd {other!r} is not {{'version': N}} with N from 1 to {MAX_VERSION}"
            )
        case dict():
            return 0
        case _:
            raise PolicyInvalid(f"{name}: metadata {metadata!r} is not an object")
