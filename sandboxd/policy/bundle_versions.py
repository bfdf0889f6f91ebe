"""Remembers the highest release of a signed bundle that was ever in force here, so that no older one is taken again.

Never forgets across restarts, and refuses where it cannot know. Called by `rollout` once a bundle is proved.
"""

import json
import os
from pathlib import Path

from sandboxd.audit.segment import open_private, private_directory
from sandboxd.errors import PolicyInvalid
from sandboxd.policy.rego_bundle import Release

DIRECTORY, FILE = "policy", "release.json"  # below the state directory
_NEW = "release.json.new"
_MAX_BYTES = 4096


class Versions:
    def __init__(self, state_dir: Path) -> None:
        self._path = state_dir / DIRECTORY

    def admit(self, release: Release) -> None:
        """Remember it. PolicyInvalid if it is older than the one before, or another by the same number; OSError."""
        directory = private_directory(self._path)
        try:
            known = self._read(directory)
            if known is not None:
                self._compare(known, release)
            if known != release:
                _write(directory, release)
        finally:
            os.close(directory)

    def _compare(self, known: Release, release: Release) -> None:
        if release.version < known.version:
            raise PolicyInvalid(
                f"the bundle is release {release.version}, and {known.version} was in force here already; "
                f"build a newer one, or remove {str(self._path / FILE)!r} to go back",
                reason="policy_older",
            )
        if release.version == known.version and release.digest != known.digest:
            raise PolicyInvalid(
                f"the bundle is not the release {release.version} that was in force here; count its version up",
                reason="policy_older",
            )

    def _read(self, directory: int) -> Release | None:
        try:
            descriptor = open_private(directory, FILE, os.O_RDONLY)
        except FileNotFoundError:
            return None
        with os.fdopen(descriptor, "rb") as file:
            content = file.read(_MAX_BYTES)
        try:
            match json.loads(content):
                case {"version": int(version), "digest": str(digest), **rest} if not rest and version > 0:
                    return Release(version, digest)
                case other:
                    raise ValueError(f"{other!r} is no release")
        except (ValueError, RecursionError) as error:
            raise PolicyInvalid(
                f"{str(self._path / FILE)!r} is damaged ({str(error)[:200]}), so nobody knows which releases are older;"
                " remove it once you do"
            ) from error


def _write(directory: int, release: Release) -> None:
    """Whole, or as it was before."""
    content = json.dumps({"version": release.version, "digest": release.digest}).encode()
    descriptor = open_private(directory, _NEW, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(descriptor)
    os.rename(_NEW, FILE, src_dir_fd=directory, dst_dir_fd=directory)
    os.fsync(directory)
