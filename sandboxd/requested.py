"""What an Execute asks for, as policy is asked about it; and what it asks for that nothing serves yet.

Pure. Called by `execution`.
"""

import hashlib

from sandboxd.action import ExecutionStart
from sandboxd.analysis.analyser import Analysis
from sandboxd.errors import Unenforceable
from sandboxd.model import ArgvProgram, CodeProgram, ExecuteRequest
from sandboxd.profile.resolve import ResolvedProfile

RESERVED = ("sandbox_id", "context_id", "idempotency_key", "detach", "workspace_mode")


def refuse_reserved(request: ExecuteRequest) -> None:
    """Fields that exist in the API and that nothing serves yet: ignoring one would break what it promises."""
    for name in RESERVED:
        if value := getattr(request, name):
            raise Unenforceable(
                f"{name} {value!r:.80} is not supported by this version; leave it out", reason="not_supported"
            )


def start_of(request: ExecuteRequest, profile: ResolvedProfile, analysis: Analysis) -> ExecutionStart:
    program = request.program
    code = program if isinstance(program, CodeProgram) else None
    return ExecutionStart(
        argv=program.argv if isinstance(program, ArgvProgram) else (),
        language=code.language if code else "",
        code_sha256=hashlib.sha256(code.source.encode("utf-8", "surrogatepass")).hexdigest() if code else "",
        findings=analysis.findings,
        code=analysis.code,
        env_names=tuple(name for name, _ in request.env),
        files=tuple(file.path for file in request.files),
        stdin_bytes=len(request.stdin),
        isolation=profile.isolation,
        network=profile.network,
        limits=profile.limits,
        labels=request.labels,
        agent=request.agent,
    )
