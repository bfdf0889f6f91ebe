import json

from sandboxd.audit.digest import PLAIN
from sandboxd.audit.line import ORIGIN, body, decode, encode
from sandboxd.event import ExecutionRequested
from sandboxd.model import Agent, ArgvProgram, Caller, CodeProgram, ExecuteRequest, InputFile
from sandboxd.sink.falco_event import falco_event
from sandboxd.span import Span, command_of, redacted_input
from tests.fakes.recorder import FakeRecorder

CALLER = Caller("local", "uid:1", ("admin", "operator"), "/sandboxd.v1.SandboxService/Execute")
TRACE = "0af7651916cd43dd8448eb211c80319c"


def test_document_is_canonical_and_tells_secrets_only_by_digest() -> None:
    request = ExecuteRequest(
        ArgvProgram(("/bin/true", "\udcff\n")),
        stdin=b"secret1",
        env=(("TOKEN", "secret2"),),
        files=(InputFile("a", b"secret3"),),
        agent=Agent(name="bot"),
    )
    document = redacted_input(request, CALLER, PLAIN.of)
    assert b"secret" not in document
    content = json.loads(document)
    assert content["program"]["argv"] == ["/bin/true", "\udcff\n"]
    assert content["env"] == ["TOKEN"]
    assert content["stdin"]["bytes"] == 7
    assert document == redacted_input(request, CALLER, PLAIN.of)
    assert document != redacted_input(request, Caller("other", "uid:1", (), "Execute"), PLAIN.of)


async def test_first_record_says_as_what_and_by_which_method_the_caller_asked() -> None:
    recorder = FakeRecorder()
    await Span(recorder, CALLER, "e" * 32, "b" * 32, TRACE).requested(ExecuteRequest(ArgvProgram(("ls",))))
    (event,) = recorder.events
    assert isinstance(event, ExecutionRequested)
    assert (event.caller_roles, event.caller_method) == (CALLER.roles, CALLER.method)
    fields = falco_event(decode(encode(body(event), ORIGIN, "boot", "node", 0)[:-1]))["output_fields"]
    assert isinstance(fields, dict)
    assert (fields["sandbox.caller_roles"], fields["sandbox.caller_method"]) == ("admin,operator", CALLER.method)


def test_command_is_the_argv_or_the_source() -> None:
    assert command_of(ExecuteRequest(ArgvProgram(("ls", "-l")))) == "ls -l"
    assert command_of(ExecuteRequest(CodeProgram("python", "print(1)"))) == "print(1)"
