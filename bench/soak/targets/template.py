"""The compiler child's output, as the spawner reads it."""

from bench.soak.target import Broken, Target
from sandboxd.profile.compile import compiled
from sandboxd.profile.load import load_profiles
from sandboxd.profile.seccomp import Memfd
from sandboxd.settings.paths import shipped
from sandboxd.spawner.template import TemplateInvalid, dump, load


def run(data: bytes) -> object:
    templates = load(data.decode(errors="surrogateescape"))
    if load(dump(templates)) != templates:
        raise Broken(f"{templates!r} is not what it is dumped to")
    return templates


def target() -> Target:
    profile = load_profiles([shipped("profiles")], filters_proved=True).get("strict")
    whole = compiled(profile, Memfd.SYSCTL)
    short = type(whole)(
        whole.digest,
        whole.name,
        whole.hostname,
        type(whole.view)("", whole.view.binds[:1], whole.view.symlinks[:1], ()),
        whole.proc,
        whole.network,
        whole.workspace_executable,
        whole.landlock[:1],
        whole.landlock_scopes,
        whole.seccomp[:16],
        whole.seccomp_first,
        whole.ceilings,
    )
    words = (b"null", b"[]", b"{}", b"1e999", b"9" * 320, b'"\\ud800"', b"[" * 200, b"true")
    seeds = (dump((short,)).encode(), b'{"templates": []}')
    return Target("template", ("sandboxd.spawner.template",), run, (TemplateInvalid,), seeds, words)
