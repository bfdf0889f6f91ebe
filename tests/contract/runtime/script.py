"""The contract's programs as the fake plays them: the few things that the contract's command lines do."""

import asyncio
from signal import SIGTERM

from sandboxd.model import ExitStatus
from tests.fakes.runtime import FakeProgram

SHELL = "/bin/sh"
ECHO = (SHELL, "-c", "echo out; echo err >&2")
EXIT_3 = (SHELL, "-c", "exit 3")
KILL_ITSELF = (SHELL, "-c", "kill -KILL $$")
CAT = ("/bin/cat",)
MISSING = ("/no/such/program",)
NOT_EXECUTABLE = ("/etc/passwd",)
FOREVER = (SHELL, "-c", "echo up; exec sleep 1000")
WAIT_FOR_TERM = (SHELL, "-c", "trap 'exit 15' TERM; echo up; while :; do sleep 0.05; done")
ENVIRONMENT = (SHELL, "-c", 'echo "$GIVEN"')
DIRECTORY = ("/bin/pwd",)


async def play(program: FakeProgram) -> ExitStatus:
    plan = program.plan
    match plan.argv:
        case argv if argv == ECHO:
            await program.stdout(b"out\n")
            await program.stderr(b"err\n")
        case argv if argv == EXIT_3:
            return ExitStatus(3, None)
        case argv if argv == KILL_ITSELF:
            return ExitStatus(None, 9)
        case argv if argv == CAT:
            await program.stdout(await program.stdin())
        case argv if argv == MISSING:
            await program.stderr(b"/no/such/program: No such file or directory\n")
            return ExitStatus(127, None)
        case argv if argv == NOT_EXECUTABLE:
            await program.stderr(b"/etc/passwd: Permission denied\n")
            return ExitStatus(126, None)
        case argv if argv == FOREVER:
            await program.stdout(b"up\n")
            await asyncio.Event().wait()
        case argv if argv == WAIT_FOR_TERM:
            await program.stdout(b"up\n")
            while SIGTERM not in program.signals:
                await asyncio.sleep(0)
            return ExitStatus(15, None)
        case argv if argv == ENVIRONMENT:
            await program.stdout(dict(plan.env).get("GIVEN", "").encode() + b"\n")
        case argv if argv == DIRECTORY:
            await program.stdout(plan.cwd.encode() + b"\n")
        case _:
            raise AssertionError(f"the fake does not know {plan.argv}")
    return ExitStatus(0, None)
