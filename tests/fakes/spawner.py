"""The spawner as the daemon sees it through `runtime.process.ProcessRuntime`, on top of the fake runtime."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field

from sandboxd.errors import RuntimeFailed
from sandboxd.spawner import wire
from tests.fakes.runtime import FakeRuntime, FakeSandbox

Templates = tuple[tuple[str, str], ...]


@dataclass
class FakeSpawner(FakeRuntime):
    """`templates` is what it compiled at start, `recompiled` what a reload gives (None: it fails)."""

    templates: Templates = ()
    recompiled: Templates | None = ()
    adopted: tuple[FakeSandbox, ...] = ()
    reloads: int = 0
    offered: int = 0
    status: str = ""
    served: asyncio.Event = field(default_factory=asyncio.Event)
    reloaded: Callable[[wire.Reloaded], None] = lambda _message: None
    drain: Callable[[wire.Drain], None] = lambda _message: None
    lost: Callable[[], None] = lambda: None

    @property
    def hello(self) -> wire.Hello:
        return wire.Hello("root", "6.1.0", (), self.templates, len(self.adopted))

    def on_reloaded(self, callback: Callable[[wire.Reloaded], None]) -> None:
        self.reloaded = callback

    def on_drain(self, callback: Callable[[wire.Drain], None]) -> None:
        self.drain = callback

    def on_lost(self, callback: Callable[[], None]) -> None:
        self.lost = callback

    def ready(self, status: str) -> None:
        self.status = status
        self.served.set()

    async def reload(self) -> Templates:
        self.reloads += 1
        if self.recompiled is None:
            raise RuntimeFailed("a profile is wrong", reason="reload_failed")
        return self.recompiled
