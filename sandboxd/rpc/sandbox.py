"""SandboxService: runs programs, and looks after the ones that run.

Must never hold more output than one answer may carry: Execute passes each chunk on and waits until the transport took
it, Run keeps the head of each stream. Decides nothing. Bound to gRPC by `server`.
"""

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Protocol, assert_never

from sandboxd.errors import InvalidRequest
from sandboxd.lifecycle import ExecutionState, Registry
from sandboxd.model import Accepted, Caller, Chunk, ExecuteRequest, Outcome, Stream
from sandboxd.rpc import convert, request
from sandboxd.rpc.interceptors import Call, Method, Streaming, Unary
from sandboxd.rpc.v1 import sandbox_pb2

DEFAULT_PAGE = 100
MAX_PAGE = 1000
LOG_PIECE_BYTES = 64 * 1024
RESULT_OVERHEAD_BYTES = 256 * 1024  # of a message: enforcement rows, violations, skipped files and what frames them


class Executes(Protocol):
    """What this service needs of `execution.Executor`."""

    def execute(self, request: ExecuteRequest, caller: Caller) -> AsyncGenerator[Accepted | Chunk | Outcome, None]:
        """One Accepted, chunks, one Outcome. Closing it early means that the caller went away."""


class SandboxService:
    NAME = sandbox_pb2.DESCRIPTOR.services_by_name["SandboxService"].full_name

    def __init__(self, executor: Executes, registry: Registry, max_message_bytes: int, run_output_bytes: int) -> None:
        """`run_output_bytes` is kept of each stream in Run's answer."""
        self._executor = executor
        self._registry = registry
        self._max_message_bytes = max_message_bytes
        self._run_output_bytes = run_output_bytes

    def methods(self) -> dict[str, Method]:
        return {
            "Execute": Streaming(sandbox_pb2.ExecuteRequest, self._execute),
            "Run": Unary(sandbox_pb2.ExecuteRequest, self._run),
            "GetExecution": Unary(sandbox_pb2.GetExecutionRequest, self._get),
            "ListExecutions": Unary(sandbox_pb2.ListExecutionsRequest, self._list),
            "GetLogs": Streaming(sandbox_pb2.GetLogsRequest, self._logs),
            "KillExecution": Unary(sandbox_pb2.KillExecutionRequest, self._kill),
        }

    async def _execute(
        self, message: sandbox_pb2.ExecuteRequest, call: Call
    ) -> AsyncGenerator[sandbox_pb2.ExecuteEvent, None]:
        asked = request.execute_request(message, call.traceparent, call.tracestate)
        del message  # its files and stdin are in `asked` now, and an execution may take long
        room = self._max_message_bytes - RESULT_OVERHEAD_BYTES
        async with aclosing(self._executor.execute(asked, call.caller)) as items:
            async for item in items:
                match item:
                    case Chunk():
                        yield sandbox_pb2.ExecuteEvent(chunk=convert.chunk(item))
                    case Accepted():
                        yield sandbox_pb2.ExecuteEvent(accepted=convert.accepted(item))
                    case Outcome():
                        yield sandbox_pb2.ExecuteEvent(result=convert.result(item, room))
                    case _:
                        assert_never(item)

    async def _run(self, message: sandbox_pb2.ExecuteRequest, call: Call) -> sandbox_pb2.RunResponse:
        asked = request.execute_request(message, call.traceparent, call.tracestate)
        del message  # its files and stdin are in `asked` now, and an execution may take long
        response = sandbox_pb2.RunResponse()
        kept = {stream: bytearray() for stream in Stream}
        dropped: set[Stream] = set()
        async with aclosing(self._executor.execute(asked, call.caller)) as items:
            async for item in items:
                match item:
                    case Chunk(stream=stream, data=data):
                        room = self._run_output_bytes - len(kept[stream])
                        kept[stream] += data[:room]
                        if len(data) > room:
                            dropped.add(stream)
                    case Accepted():
                        response.accepted.CopyFrom(convert.accepted(item))
                    case Outcome():
                        room = self._max_message_bytes - RESULT_OVERHEAD_BYTES - sum(map(len, kept.values()))
                        response.result.CopyFrom(convert.result(item, room))
                    case _:
                        assert_never(item)
        response.stdout = bytes(kept[Stream.STDOUT])
        response.stderr = bytes(kept[Stream.STDERR])
        response.result.stdout_truncated |= Stream.STDOUT in dropped
        response.result.stderr_truncated |= Stream.STDERR in dropped
        return response

    async def _get(self, message: sandbox_pb2.GetExecutionRequest, call: Call) -> sandbox_pb2.GetExecutionResponse:
        record = self._registry.get(request.execution_id(message.execution_id), call.caller)
        return sandbox_pb2.GetExecutionResponse(execution=convert.execution(record))

    async def _list(self, message: sandbox_pb2.ListExecutionsRequest, call: Call) -> sandbox_pb2.ListExecutionsResponse:
        newest_first = sorted(
            (
                record
                for record in self._registry.list(call.caller)
                if not (message.living_only and record.state is ExecutionState.ENDED)
            ),
            key=lambda record: (record.requested_at, record.execution_id),
            reverse=True,
        )
        if message.page_token:
            after = _position(message.page_token)
            newest_first = [r for r in newest_first if (r.requested_at, r.execution_id) < after]
        size = min(message.page_size or DEFAULT_PAGE, MAX_PAGE)
        page = newest_first[:size]
        more = len(newest_first) > size
        return sandbox_pb2.ListExecutionsResponse(
            executions=[convert.execution(record) for record in page],
            next_page_token=f"{page[-1].requested_at!r}/{page[-1].execution_id}" if more else "",
        )

    async def _logs(
        self, message: sandbox_pb2.GetLogsRequest, call: Call
    ) -> AsyncGenerator[sandbox_pb2.GetLogsResponse, None]:
        kept = self._registry.logs(request.execution_id(message.execution_id), call.caller)
        for stream, data in zip((Stream.STDOUT, Stream.STDERR), kept, strict=True):
            for offset in range(0, len(data), LOG_PIECE_BYTES):
                piece = Chunk(stream, offset, data[offset : offset + LOG_PIECE_BYTES])
                yield sandbox_pb2.GetLogsResponse(chunk=convert.chunk(piece))

    async def _kill(self, message: sandbox_pb2.KillExecutionRequest, call: Call) -> sandbox_pb2.KillExecutionResponse:
        signum = request.signal_number(message)
        await self._registry.kill(request.execution_id(message.execution_id), signum, call.caller)
        return sandbox_pb2.KillExecutionResponse()


def _position(token: str) -> tuple[float, str]:
    """The last execution of the page before: pages stay right while executions come and go."""
    requested_at, slash, execution_id = token.partition("/")
    try:
        if slash:
            return float(requested_at), execution_id
    except ValueError:
        pass
    raise InvalidRequest(f"page_token {token!r:.80} was not made by this node; start again without one")
