"""A daemon in hostile hands: what the spawner lets it launch, and init execute, stays within the template."""

import dataclasses

from bench.soak.target import Broken, Target
from sandboxd.profile.compile import compiled
from sandboxd.profile.load import load_profiles
from sandboxd.profile.seccomp import Memfd
from sandboxd.settings.paths import shipped
from sandboxd.spawner import plans, wire
from sandboxd.spawner.ids import PER_SANDBOX
from sandboxd.spawner.seccomp import Filter
from sandboxd.spawner.template import Template

PREPARES = ("plans.Prepared.room", "plans.Prepared.limits", "plans.prepare", "plans._shape")


def target() -> Target:
    profile = load_profiles([shipped("profiles")], filters_proved=True).get("strict")
    template = compiled(profile, Memfd.SYSCTL)
    shape = plans.Shape("", template.hostname, template.proc, False, template.landlock, True, template.seccomp, False)
    prepared = {"d": plans.Prepared(template, Filter(template.seccomp), shape)}
    ceilings = template.ceilings
    uncontrolled = wire.Assign("d", ceilings.memory_bytes, ceilings.pids, 1, 1, 1, 1)

    def run(data: bytes) -> object:
        message = wire.decode(data)
        match message:
            case wire.Launch():
                plans.check(message, prepared)
                _hold(message, template)
                return message.sandbox_id
            case wire.Execute():
                if plans.objection(message, template, uncontrolled):
                    return None
                _hold(message, template)
                if not 0 <= message.slot < PER_SANDBOX or not message.argv:
                    raise Broken(f"{message!r}")
                return message.argv
            case _:
                return None

    launch = wire.Launch(1, 0, "s", "d", "none", 1, 1, 0.5, 1, 1, 1, 1, 0, 0)
    execute = wire.Execute("e", ("x",), (("A", "b"),), "/", 0, 8, 1, 1.0, 1, 1)
    seeds = (wire.encode(launch), wire.encode(execute))
    words = (b"1e999", b"-1", b"9" * 20, b"0.0", b"1e-320", b'"d"', b'"none"', b'"loopback"', b"-0.0")
    allowed = (wire.ProtocolError, plans.LaunchRefused)
    return Target("launch", ("sandboxd.spawner.plans",), run, allowed, seeds, words, outside=PREPARES)


def _hold(message: wire.Launch | wire.Execute, template: Template) -> None:
    for field in dataclasses.fields(template.ceilings):
        asked = getattr(message, field.name, None)
        if asked is not None and not 0 < asked <= getattr(template.ceilings, field.name):
            raise Broken(f"{field.name} {asked!r} went through")
