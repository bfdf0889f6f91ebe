"""Finds the implementation of a seam (policy engine, runtime, sink) by its name in the daemon's own configuration.

Never called with a name from a request. A seam's folder holds `base.py` and one module per implementation; the module
named `NAME` offers a factory `create`.
"""

from importlib import import_module
from importlib.util import find_spec
from types import ModuleType

from sandboxd.errors import ConfigInvalid


def implementation(seam: str, name: str) -> ModuleType:
    """The module `sandboxd.<seam>.<name>`; `ConfigInvalid` if the name is no implementation of that seam."""
    if not name.isidentifier() or name == "base" or name.startswith("_"):
        raise ConfigInvalid(f"{name!r} is not a {seam} implementation")
    qualified = f"sandboxd.{seam}.{name}"
    if find_spec(qualified) is None:
        raise ConfigInvalid(f"{name!r} is not a {seam} implementation; see the files in sandboxd/{seam}/")
    module = import_module(qualified)
    if not hasattr(module, "create"):
        raise ConfigInvalid(f"{name!r} is not a {seam} implementation: it offers no factory")
    return module
