"""The asyncio client: the same calls as `Client`, awaited. Belongs to the event loop it is first used in.

Cancelling a task, leaving a loop over `execute` early, or the deadline of a call kills what was started.
"""

from collections.abc import AsyncGenerator, Sequence
from types import TracebackType
from typing import Self, TypeVar, Unpack

import grpc
import grpc.aio
from google.protobuf.message import Message

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


class AsyncClient:
    """Speaks to one daemon; see `Client` for the arguments and the errors."""

    def __init__(self, address: str | None = None, token: str | None = None, tls: Tls | None = None) -> None:
        self.address = addresses.target(address, token, tls)
        self.version_warning = ""
        self._checked = False
        self._metadata = addresses.metadata(token)
        if tls is None:
            self._channel = grpc.aio.insecure_channel(self.address, options=addresses.CHANNEL_OPTIONS)
        else:
            credentials = grpc.ssl_channel_credentials(tls.root_certificates, tls.private_key, tls.certificate_chain)
            self._channel = grpc.aio.secure_channel(self.address, credentials, options=addresses.CHANNEL_OPTIONS)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Closes the connection; executions that were started over it and still run are killed."""
        await self._channel.close()

    async def run(self, argv: Sequence[str], **options: Unpack[Options]) -> Result:
        """Runs a program to its end and gives its whole kept output."""
        return await self._whole(argv, options)

    async def run_code(self, source: str, language: str = "python", **options: Unpack[Options]) -> Result:
        """Runs source text with the interpreter that the profile has for `language`."""
        return await self._whole(Code(source, language), options)

    def execute(self, program: Program, **options: Unpack[Options]) -> AsyncGenerator[Event, None]:
        """Runs an argument list or `Code` and yields `Accepted`, then `Chunk`s as they come, then `Result`.

        Wrap it in `contextlib.aclosing` where the loop may be left early: Python closes it late otherwise.
        """
        return self._events(execute_request(program, options), options.get("timeout_seconds"))

    async def capabilities(self) -> Capabilities:
        """What the node is and what each of its runtimes can enforce."""
        return await self._unary(question.capabilities())

    async def profiles(self) -> tuple[Profile, ...]:
        """All profiles of the node, without their `spec_json`."""
        return await self._ask(question.profiles())

    async def profile(self, name: str) -> Profile:
        """One profile, whole; `NotFound` if the node has none of that name."""
        return await self._ask(question.profile(name))

    async def policy(self) -> Policy:
        """The policy that decides on the node."""
        return await self._ask(question.policy())

    async def check_policy(self, input_json: str) -> PolicyCheck:
        """What that policy would decide for an input of policy; for operators, and nothing happens."""
        return await self._ask(question.check_policy(input_json))

    async def executions(self, *, living_only: bool = False) -> tuple[Execution, ...]:
        """The caller's executions, living and retained, newest first."""
        found: list[Execution] = []
        token = ""
        while True:
            page, token = await self._ask(question.executions(living_only=living_only, page_token=token))
            found.extend(page)
            if not token:
                return tuple(found)

    async def execution(self, execution_id: str) -> Execution:
        """One execution; `NotFound` if it is unknown, too old, or another tenant's."""
        return await self._ask(question.execution(execution_id))

    async def logs(self, execution_id: str) -> Logs:
        """The output kept so far of a living or retained execution."""
        asked = question.logs(execution_id)
        await self.check_version()
        method = self._channel.unary_stream(
            asked.method,
            request_serializer=type(asked.request).SerializeToString,
            response_deserializer=asked.answer.FromString,
        )
        with translated(self.address, Progress()):
            call = method(asked.request, timeout=question.SECONDS, metadata=self._metadata)
            return asked.value([answer async for answer in call])

    async def kill(self, execution_id: str, signum: int | None = None) -> None:
        """Kills the whole process tree, or sends one signal; an execution that has already ended is no error."""
        await self._ask(question.kill(execution_id, signum))

    async def approvals(self, approval_id: str = "", *, pending_only: bool = False) -> tuple[Approval, ...]:
        """Open approvals that the caller may see, oldest first; with an id that one, or `NotFound`."""
        found: list[Approval] = []
        token = ""
        while True:
            page, token = await self._ask(
                question.approvals(approval_id=approval_id, pending_only=pending_only, page_token=token)
            )
            found.extend(page)
            if not token:
                return tuple(found)

    async def approve(self, approval_id: str, comment: str = "") -> Approval:
        """Votes for it, as another than who asked: `PolicyDenied` or `InvalidRequest` if the vote does not count."""
        return await self._ask(question.approve(approval_id, comment))

    async def deny(self, approval_id: str, comment: str = "") -> Approval:
        """Votes against it, which ends it; as `approve`. The agent is told the comment."""
        return await self._ask(question.deny(approval_id, comment))

    async def watch_approvals(self) -> AsyncGenerator[Approval, None]:
        """What is pending now, then whatever changes, until the loop is left or the node goes down."""
        await self.check_version()
        method = self._channel.unary_stream(
            question.WATCH_APPROVALS,
            request_serializer=approval_pb2.ApprovalServiceWatchRequest.SerializeToString,
            response_deserializer=approval_pb2.ApprovalServiceWatchResponse.FromString,
        )
        with translated(self.address, Progress()):
            call = method(approval_pb2.ApprovalServiceWatchRequest(), metadata=self._metadata)
            try:
                async for update in call:
                    yield convert.approval(update.approval)
            finally:
                call.cancel()

    async def respond(self, measure: Measure, target: Target, comment: str = "") -> tuple[ExecutionEffect, ...]:
        """Has that done about an incident; for operators. What became of each execution that lived."""
        return await self._ask(question.respond(measure, target, comment))

    async def quarantines(self) -> tuple[Quarantine, ...]:
        """Those in force, oldest first; for operators."""
        return await self._ask(question.quarantines())

    async def examine(self, target: Target, workspace_bytes: int = 0) -> AsyncGenerator[Evidence, None]:
        """What can be known of a living sandbox from outside, frozen or not; for operators. 0: as the node has it."""
        await self.check_version()
        method = self._channel.unary_stream(
            question.EXAMINE,
            request_serializer=node_pb2.ExamineRequest.SerializeToString,
            response_deserializer=node_pb2.ExamineResponse.FromString,
        )
        with translated(self.address, Progress()):
            call = method(question.examine(target, workspace_bytes), metadata=self._metadata)
            try:
                async for piece in call:
                    yield Evidence(piece.name, piece.data)
            finally:
                call.cancel()

    async def query_audit(
        self, wanted: AuditFilter = EVERYTHING, *, limit: int = 100, oldest_first: bool = False, page_token: str = ""
    ) -> AuditPage:
        """Up to `limit` records of the node's journal, newest first; for operators. `next_page_token` leads on."""
        records: list[AuditRecord] = []
        damages: list[AuditDamage] = []
        while True:
            page = await self._ask(
                question.query_audit(
                    wanted, limit=limit - len(records), oldest_first=oldest_first, page_token=page_token
                )
            )
            records.extend(page.records)
            damages.extend(page.damages)
            page_token = page.next_page_token
            if not page_token or len(records) >= limit or len(damages) >= limit:
                return AuditPage(tuple(records), tuple(damages), page_token)

    async def tail_audit(
        self, wanted: AuditFilter = EVERYTHING, from_seq: int | None = None
    ) -> AsyncGenerator[AuditNews, None]:
        """The journal from that record on, 0 for the oldest, and then whatever is new; without one only what is new."""
        await self.check_version()
        method = self._channel.unary_stream(
            question.TAIL_AUDIT,
            request_serializer=audit_pb2.AuditServiceTailRequest.SerializeToString,
            response_deserializer=audit_pb2.AuditServiceTailResponse.FromString,
        )
        with translated(self.address, Progress()):
            call = method(question.tail_audit(wanted, from_seq), metadata=self._metadata)
            try:
                async for message in call:
                    yield audit_convert.news(message)
            finally:
                call.cancel()

    async def verify_audit(self) -> AuditVerification:
        """Has the node check its whole journal; it may take long. `Overloaded` while it does so for somebody else."""
        return await self._ask(question.verify_audit())

    async def audit_sinks(self) -> tuple[AuditSink, ...]:
        """How the node's sinks do, in the order of its configuration."""
        return await self._ask(question.audit_sinks())

    async def audit_key(self) -> AuditKey:
        """What the node signs its journal with."""
        return await self._ask(question.audit_key())

    async def check_version(self) -> None:
        """`VersionMismatch` if client and daemon cannot work together; sets `version_warning`. Asks only once."""
        if self._checked:
            return
        found = await self.capabilities()
        self.version_warning = version.check(__version__, found.version, found.api_versions)
        self._checked = True

    async def _ask(self, asked: question.Question[AnswerT, ValueT]) -> ValueT:
        await self.check_version()
        return await self._unary(asked)

    async def _unary(self, asked: question.Question[AnswerT, ValueT]) -> ValueT:
        method = self._channel.unary_unary(
            asked.method,
            request_serializer=type(asked.request).SerializeToString,
            response_deserializer=asked.answer.FromString,
        )
        with translated(self.address, Progress()):
            answer = await method(asked.request, timeout=asked.seconds, metadata=self._metadata)
        return asked.value(answer)

    async def _whole(self, program: Program, options: Options) -> Result:
        whole = Whole()
        async for event in self._events(execute_request(program, options), options.get("timeout_seconds")):
            whole.add(event)
        return whole.result()

    async def _events(
        self, request: sandbox_pb2.ExecuteRequest, timeout_seconds: float | None
    ) -> AsyncGenerator[Event, None]:
        await self.check_version()
        progress = Progress()
        reader = EventReader(progress)
        method = self._channel.unary_stream(
            question.EXECUTE,
            request_serializer=sandbox_pb2.ExecuteRequest.SerializeToString,
            response_deserializer=sandbox_pb2.ExecuteEvent.FromString,
        )
        with translated(self.address, progress):
            call = method(request, timeout=timeout_seconds, metadata=self._metadata)
            try:
                async for message in call:
                    event = reader.read(message)
                    if event is not None:
                        yield event
            finally:
                call.cancel()  # without effect once the stream has ended
        reader.finish()
