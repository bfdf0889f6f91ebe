"""Tells whether this client and a daemon fit. Pure; asked once per client before its first call."""

from collections.abc import Sequence

from sandboxd.client.errors import VersionMismatch

API = "v1"


def check(client: str, daemon: str, api_versions: Sequence[str]) -> str:
    """A sentence to warn with, empty if none is due; `VersionMismatch` where the two cannot work together."""
    if api_versions and API not in api_versions:
        raise VersionMismatch(
            f"the daemon {daemon!r} serves API {', '.join(api_versions)} and this client speaks {API}; "
            "update the older one"
        )
    ours, theirs = client.split("."), daemon.split(".")
    if ours[0] != theirs[0]:
        raise VersionMismatch(f"the daemon is version {daemon!r} and this client {client!r}; update the older one")
    if ours[1:2] != theirs[1:2]:
        return f"the daemon is version {daemon!r} and this client {client!r}; newer features may be missing"
    return ""
