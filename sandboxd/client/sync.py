"""The blocking client. Keeps one connection; safe to use from several threads.

Leaving a loop over `execute` early, closing the client, or the deadline of a call kills what was started.
"""

from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager, suppress
from types import TracebackType
from typing import Any, Self, TypeVar, Unpack

import grpc
from google.protobuf.message import Message
from grpc.experimental import ChannelOptions

from sandboxd import __version__
from sandboxd.client import address as addresses
from sandboxd.client import audit_convert, convert, question, version
from sandboxd.client.address import Tls
from sandboxd.client.approval import Approval
from sandboxd.client.audit import (
    EVERYTHING,
    AuditDamage,
    AuditFilter,
    AuditKey,
    AuditNews,
    AuditPage,
    AuditRecord,
    AuditSink,
    AuditVerification,
)
from sandboxd.client.failure import Progress, translated
from sandboxd.client.model import Code, Event, Options, Result
from sandboxd.client.node import Capabilities, Execution, Logs, Profile
from sandboxd.client.policy import Policy, PolicyCheck
from sandboxd.client.request import Program, execute_request
from sandboxd.client.response import Evidence, ExecutionEffect, Measure, Quarantine, Target
from sandboxd.client.stream import EventReader, Whole
from sandboxd.rpc.v1 import approval_pb2, audit_pb2, node_pb2, sandbox_pb2

AnswerT = TypeVar("AnswerT", bound=Message)
ValueT = TypeVar("ValueT")

# Whoever reads a stream waits for it in their own thread: one thread fewer to start and to wake for each Execute.
_OPTIONS = (*addresses.CHANNEL_OPTIONS, (ChannelOptions.SingleThreadedUnaryStream, 1))


class Client:
    """Speaks to one daemon. `address` is `unix:/path`, a bare path, or `host:port` together with `tls`.

    Without one it is `$SANDBOXD_ADDRESS`, else the default socket. Raises `SandboxdError` and its subclasses; a program
    that fails is no error but a `Result`. The first call also checks that client and daemon fit.
    """

    def __init__(self, address: str | None = None, token: str | None = None, tls: Tls | None = None) -> None:
        self.address = addresses.target(address, token, tls)
        self.version_warning = ""
        self._checked = False
        self._metadata = addresses.metadata(token)
        if tls is None:
            self._channel = grpc.insecure_channel(self.address, options=_OPTIONS)
        else:
            credentials = grpc.ssl_channel_credentials(tls.root_certificates, tls.private_key, tls.certificate_chain)
            self._channel = grpc.secure_channel(self.address, credentials, options=_OPTIONS)

        self._execute = self._channel.unary_stream(
            question.EXECUTE,
            request_serializer=sandbox_pb2.ExecuteRequest.SerializeToString,
            response_deserializer=sandbox_pb2.ExecuteEvent.FromString,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Closes the connection; executions that were started over it and still run are killed."""
        self._channel.close()

    def run(self, argv: Sequence[str], **options: Unpack[Options]) -> Result:
        """Runs a program to its end and gives its whole kept output."""
        return self._whole(argv, options)

    def run_code(self, source: str, language: str = "python", **options: Unpack[Options]) -> Result:
        """Runs source text with the interpreter that the profile has for `language`."""
        return self._whole(Code(source, language), options)

    def execute(self, program: Program, **options: Unpack[Options]) -> Generator[Event, None, None]:
        """Runs an argument list or `Code` and yields `Accepted`, then `Chunk`s as they come, then `Result`."""
        return self._events(execute_request(program, options), options.get("timeout_seconds"))

    def capabilities(self) -> Capabilities:
        """What the node is and what each of its runtimes can enforce."""
        return self._unary(question.capabilities())

    def profiles(self) -> tuple[Profile, ...]:
        """All profiles of the node, without their `spec_json`."""
        return self._ask(question.profiles())

    def profile(self, name: str) -> Profile:
        """One profile, whole; `NotFound` if the node has none of that name."""
        return self._ask(question.profile(name))

    def policy(self) -> Policy:
        """The policy that decides on the node."""
        return self._ask(question.policy())

    def check_policy(self, input_json: str) -> PolicyCheck:
        """What that policy would decide for an input of policy; for operators, and nothing happens."""
        return self._ask(question.check_policy(input_json))

    def executions(self, *, living_only: bool = False) -> tuple[Execution, ...]:
        """The caller's executions, living and retained, newest first."""
        found: list[Execution] = []
        token = ""
        while True:
            page, token = self._ask(question.executions(living_only=living_only, page_token=token))
            found.extend(page)
            if not token:
                return tuple(found)

    def execution(self, execution_id: str) -> Execution:
        """One execution; `NotFound` if it is unknown, too old, or another tenant's."""
        return self._ask(question.execution(execution_id))

    def logs(self, execution_id: str) -> Logs:
        """The output kept so far of a living or retained execution."""
        asked = question.logs(execution_id)
        self.check_version()
        with translated(self.address, Progress()):
            method = self._channel.unary_stream(
                asked.method,
                request_serializer=type(asked.request).SerializeToString,
                response_deserializer=asked.answer.FromString,
            )
            with _reading(method(asked.request, timeout=question.SECONDS, metadata=self._metadata)) as answers:
                return asked.value(answers)

    def kill(self, execution_id: str, signum: int | None = None) -> None:
        """Kills the whole process tree, or sends one signal; an execution that has already ended is no error."""
        self._ask(question.kill(execution_id, signum))

    def approvals(self, approval_id: str = "", *, pending_only: bool = False) -> tuple[Approval, ...]:
        """Open approvals that the caller may see, oldest first; with an id that one, or `NotFound`."""
        found: list[Approval] = []
        token = ""
        while True:
            page, token = self._ask(
                question.approvals(approval_id=approval_id, pending_only=pending_only, page_token=token)
            )
            found.extend(page)
            if not token:
                return tuple(found)

    def approve(self, approval_id: str, comment: str = "") -> Approval:
        """Votes for it, as another than who asked: `PolicyDenied` or `InvalidRequest` if the vote does not count."""
        return self._ask(question.approve(approval_id, comment))

    def deny(self, approval_id: str, comment: str = "") -> Approval:
        """Votes against it, which ends it; as `approve`. The agent is told the comment."""
        return self._ask(question.deny(approval_id, comment))

    def watch_approvals(self) -> Generator[Approval, None, None]:
        """What is pending now, then whatever changes, until the loop is left or the node goes down."""
        self.check_version()
        method = self._channel.unary_stream(
            question.WATCH_APPROVALS,
            request_serializer=approval_pb2.ApprovalServiceWatchRequest.SerializeToString,
            response_deserializer=approval_pb2.ApprovalServiceWatchResponse.FromString,
        )
        with (
            translated(self.address, Progress()),
            _reading(method(approval_pb2.ApprovalServiceWatchRequest(), metadata=self._metadata)) as updates,
        ):
            for update in updates:
                yield convert.approval(update.approval)

    def respond(self, measure: Measure, target: Target, comment: str = "") -> tuple[ExecutionEffect, ...]:
        """Has that done about an incident; for operators. What became of each execution that lived."""
        return self._ask(question.respond(measure, target, comment))

    def quarantines(self) -> tuple[Quarantine, ...]:
        """Those in force, oldest first; for operators."""
        return self._ask(question.quarantines())

    def examine(self, target: Target, workspace_bytes: int = 0) -> Generator[Evidence, None, None]:
        """What can be known of a living sandbox from outside, frozen or not; for operators. 0: as the node has it."""
        self.check_version()
        method = self._channel.unary_stream(
            question.EXAMINE,
            request_serializer=node_pb2.ExamineRequest.SerializeToString,
            response_deserializer=node_pb2.ExamineResponse.FromString,
        )
        with (
            translated(self.address, Progress()),
            _reading(method(question.examine(target, workspace_bytes), metadata=self._metadata)) as pieces,
        ):
            for piece in pieces:
                yield Evidence(piece.name, piece.data)

    def query_audit(
        self, wanted: AuditFilter = EVERYTHING, *, limit: int = 100, oldest_first: bool = False, page_token: str = ""
    ) -> AuditPage:
        """Up to `limit` records of the node's journal, newest first; for operators. `next_page_token` leads on."""
        records: list[AuditRecord] = []
        damages: list[AuditDamage] = []
        while True:
            page = self._ask(
                question.query_audit(
                    wanted, limit=limit - len(records), oldest_first=oldest_first, page_token=page_token
                )
            )
            records.extend(page.records)
            damages.extend(page.damages)
            page_token = page.next_page_token
            if not page_token or len(records) >= limit or len(damages) >= limit:
                return AuditPage(tuple(records), tuple(damages), page_token)

    def tail_audit(
        self, wanted: AuditFilter = EVERYTHING, from_seq: int | None = None
    ) -> Generator[AuditNews, None, None]:
        """The journal from that record on, 0 for the oldest, and then whatever is new; without one only what is new."""
        self.check_version()
        method = self._channel.unary_stream(
            question.TAIL_AUDIT,
            request_serializer=audit_pb2.AuditServiceTailRequest.SerializeToString,
            response_deserializer=audit_pb2.AuditServiceTailResponse.FromString,
        )
        with (
            translated(self.address, Progress()),
            _reading(method(question.tail_audit(wanted, from_seq), metadata=self._metadata)) as messages,
        ):
            for message in messages:
                yield audit_convert.news(message)

    def verify_audit(self) -> AuditVerification:
        """Has the node check its whole journal; it may take long. `Overloaded` while it does so for somebody else."""
        return self._ask(question.verify_audit())

    def audit_sinks(self) -> tuple[AuditSink, ...]:
        """How the node's sinks do, in the order of its configuration."""
        return self._ask(question.audit_sinks())

    def audit_key(self) -> AuditKey:
        """What the node signs its journal with."""
        return self._ask(question.audit_key())

    def check_version(self) -> None:
        """`VersionMismatch` if client and daemon cannot work together; sets `version_warning`. Asks only once."""
        if self._checked:
            return
        found = self.capabilities()
        self.version_warning = version.check(__version__, found.version, found.api_versions)
        self._checked = True

    def _ask(self, asked: question.Question[AnswerT, ValueT]) -> ValueT:
        self.check_version()
        return self._unary(asked)

    def _unary(self, asked: question.Question[AnswerT, ValueT]) -> ValueT:
        method = self._channel.unary_unary(
            asked.method,
            request_serializer=type(asked.request).SerializeToString,
            response_deserializer=asked.answer.FromString,
        )
        with translated(self.address, Progress()):
            answer = method(asked.request, timeout=asked.seconds, metadata=self._metadata)
        return asked.value(answer)

    def _whole(self, program: Program, options: Options) -> Result:
        whole = Whole()
        for event in self._events(execute_request(program, options), options.get("timeout_seconds")):
            whole.add(event)
        return whole.result()

    def _events(
        self, request: sandbox_pb2.ExecuteRequest, timeout_seconds: float | None
    ) -> Generator[Event, None, None]:
        self.check_version()
        progress = Progress()
        reader = EventReader(progress)
        with (
            translated(self.address, progress),
            _reading(self._execute(request, timeout=timeout_seconds, metadata=self._metadata)) as messages,
        ):
            for message in messages:
                event = reader.read(message)
                if event is not None:
                    yield event
        reader.finish()


@contextmanager
def _reading(call: Any) -> Iterator[Any]:
    """A stream that is read by the caller's own thread: cancelled if that ends early, and nothing of it kept."""
    try:
        yield call
    except (GeneratorExit, grpc.RpcError):  # not where a signal handler raised: it might have hit gRPC midway
        _let_go(call)
        raise
    finally:
        call.cancel()  # without effect once the stream has ended


def _let_go(call: Any) -> None:
    """Cancels it and takes what gRPC still has to tell of it.

    Where streams are read in the caller's own thread nobody else does, and gRPC keeps for ever a call of which it has
    something to tell. It has no public way to take that from a call that was cancelled; should another version of it
    have other names inside, the call is kept.
    """
    call.cancel()
    with suppress(AttributeError):
        while call._state.due:
            call._consume_next_event()
