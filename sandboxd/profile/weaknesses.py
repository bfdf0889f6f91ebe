"""One sentence for each thing that makes a profile weaker than it could be: logged, reported, and in the audit event.

The only place for such sentences, so that none is forgotten. Pure. Called by `resolve`.
"""

from collections.abc import Iterator

from sandboxd.profile import floor
from sandboxd.profile.schema import Allow, Spec

_USUAL_SOURCES = ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/etc")


def weaknesses(spec: Spec) -> tuple[str, ...]:
    return tuple(_sentences(spec))


def _sentences(spec: Spec) -> Iterator[str]:
    allowed = {name: group for group in spec.seccomp.allow for name in group.names}
    if spec.workspace is not None and spec.workspace.executable:
        yield "programs written to the workspace can be executed"
    if spec.network == "loopback":
        yield "processes of the sandbox can talk to each other over its own loopback interface"
    if "flock" in allowed or _allows_lock_commands(allowed.get("fcntl")):
        yield "file locks on shared read-only mounts are a covert channel to other sandboxes of this node"
    if spec.proc == "full":
        yield "/proc shows figures of the host, such as its CPUs, memory and load"
    if spec.landlock.scopes is False:
        yield "signals and abstract unix sockets are bounded by namespaces alone, without Landlock"
    if "execveat" in allowed:
        yield "execveat is allowed, so execution by descriptor rests on noexec mounts and memfd alone"
    if spec.mediate:
        yield (
            "a program may swap what it named while policy is asked, and so run what policy would deny; "
            "what can run at all is for noexec mounts, Landlock and memfd_noexec to say"
        )
    for bind in spec.root.binds:
        if not _usual(bind.source):
            yield f"the host's {bind.source} can be read in the sandbox"
    for package in spec.packages:
        if not _usual(package.path):
            yield f"programs of the host's {package.path} can be read and executed in the sandbox"
    if spec.enforcement.default == "best_effort":
        yield "what the profile does not require is reported, not refused, where this node cannot enforce it"
    for name in spec.env.fixed:
        if name in spec.env.allow:
            yield f"a request may replace the variable {name}"


def _allows_lock_commands(group: Allow | None) -> bool:
    if group is None:
        return False
    commands = [argument for argument in group.args if argument.index == 1]
    return all(
        any(command & argument.mask in argument.one_of for command in floor.FCNTL_LOCKS) for argument in commands
    )


def _usual(path: str) -> bool:
    return any(path == usual or path.startswith(usual + "/") for usual in _USUAL_SOURCES)
