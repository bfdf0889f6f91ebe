"""What happens around every call: who calls, is the request well formed, and how an error is told.

`Interceptors.begin` is the list of steps, in order; each may refuse, and none lets through what it could not judge.
Used by `server`, which binds every method of every service here, those of health and reflection too.
"""

import logging
import secrets
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, Generic, NoReturn, TypeAlias, TypeVar, cast

import grpc
from google.protobuf.descriptor import Descriptor
from google.protobuf.message import DecodeError, Message

from sandboxd.errors import CallerRefused, InvalidRequest, Overloaded, SandboxdError
from sandboxd.model import LOCAL_TENANT, OPERATOR, Caller
from sandboxd.rpc import status
from sandboxd.rpc.peer import Peers
from sandboxd.rpc.scan import scan
from sandboxd.rpc.share import Shares

_log = logging.getLogger(__name__)

Context = grpc.aio.ServicerContext[Any, Any]
Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"
Request = TypeVar("Request", bound=Message)
_TRACEPARENT, _TRACESTATE = "traceparent", "tracestate"


@dataclass(frozen=True, slots=True)
class Call:
    """What a service knows of a call beside its request. The other two are as they came in the metadata."""

    caller: Caller
    traceparent: str
    tracestate: str = ""


@dataclass(frozen=True, slots=True)
class Unary(Generic[Request]):
    """A method with one answer."""

    request: type[Request]
    answer: Callable[[Request, Call], Awaitable[Message]]


@dataclass(frozen=True, slots=True)
class Streaming(Generic[Request]):
    """A method with a stream of answers. The generator is closed when the caller goes away."""

    request: type[Request]
    answers: Callable[[Request, Call], AsyncGenerator[Message, None]]


Method = Unary[Any] | Streaming[Any]


class Interceptors:
    def __init__(self, peers: Peers, max_calls: int) -> None:
        self._peers = peers
        self._shares = Shares(max_calls, peers.allowed)
        self.errors: Counter[str] = Counter()  # calls that ended in one, by the name of its status

    def begin(self, method: str, request: type[Request], data: bytes, context: Context) -> tuple[Request, Call]:
        """The steps before a service sees a call."""
        caller = self.identify(method, context)
        return parse(request, data), Call(caller, *trace_of(context))

    def identify(self, method: str, context: Context) -> Caller:
        """The caller is who the kernel says connected; nothing in the call itself is believed."""
        peer = self._peers.of(context.peer())
        if peer is None:
            raise CallerRefused("this connection has no known peer; connect to the daemon's socket")
        if not peer.allowed:
            raise CallerRefused(f"uid {peer.uid} may not call; call as root or as the daemon's own user")
        self._take_place(peer.uid, context)
        roles = (OPERATOR,) if peer.uid in self._peers.operators else ()
        return Caller(tenant=LOCAL_TENANT, subject=f"uid:{peer.uid}", roles=roles, method=method)

    def _take_place(self, uid: int, context: Context) -> None:
        if not self._shares.fits(uid):
            raise Overloaded(
                f"uid {uid} has as many calls under way as leave others their part; end some, then retry",
                reason="calls",
                message_for_agent="Too many calls at once. Wait for some to end.",
            )
        self._shares.take(uid)
        done: Any = lambda _: self._shares.give_back(uid)  # noqa: E731 - Any: gRPC's stubs know no callables
        context.add_done_callback(done)

    def unary(self, method: str, spec: Unary[Request]) -> Handler:
        async def behaviour(box: list[bytes], context: Context) -> bytes:
            try:
                return (await spec.answer(*self.begin(method, spec.request, box.pop(), context))).SerializeToString()
            except Exception as error:  # noqa: BLE001 - the outer edge: everything is told, nothing is swallowed
                await self._tell(method, error, context)

        return grpc.unary_unary_rpc_method_handler(behaviour, _boxed)

    def streaming(self, method: str, spec: Streaming[Request]) -> Handler:
        async def behaviour(box: list[bytes], context: Context) -> None:
            try:
                answers = spec.answers(*self.begin(method, spec.request, box.pop(), context))
                async with aclosing(answers):
                    async for answer in answers:
                        # Returns when the transport took it: a slow reader stops the generator here.
                        await context.write(answer.SerializeToString())
            except grpc.aio.InternalError:
                # gRPC's word for a write to a caller who went away; the generator is closed and nobody is left to tell.
                _log.debug("caller went away", extra={"rpc_method": method})
            except Exception as error:  # noqa: BLE001 - the outer edge: everything is told, nothing is swallowed
                await self._tell(method, error, context)

        return grpc.unary_stream_rpc_method_handler(behaviour, _boxed)

    def guarded(self, method: str, handler: Handler) -> Handler:
        """A method of a library's service: the same callers, its own messages."""

        async def admit(context: Context) -> None:
            try:
                self.identify(method, context)
                return
            except (CallerRefused, Overloaded) as error:
                failure = error
            await self._tell(method, failure, context)

        if handler.stream_stream is not None:
            answers = cast(Callable[[AsyncIterator[object], Context], AsyncIterator[object]], handler.stream_stream)

            async def stream_stream(requests: AsyncIterator[object], context: Context) -> AsyncIterator[object]:
                await admit(context)
                async for answer in answers(requests, context):
                    yield answer

            return grpc.stream_stream_rpc_method_handler(
                stream_stream, handler.request_deserializer, handler.response_serializer
            )
        if handler.unary_stream is not None:
            writing = cast(Callable[[object, Context], Awaitable[None]], handler.unary_stream)

            async def unary_stream(request: object, context: Context) -> None:
                await admit(context)
                await writing(request, context)

            return grpc.unary_stream_rpc_method_handler(
                unary_stream, handler.request_deserializer, handler.response_serializer
            )

        answering = cast(Callable[[object, Context], Awaitable[object]], handler.unary_unary)

        async def unary_unary(request: object, context: Context) -> object:
            await admit(context)
            return await answering(request, context)

        return grpc.unary_unary_rpc_method_handler(
            unary_unary, handler.request_deserializer, handler.response_serializer
        )

    async def _tell(self, method: str, error: Exception, context: Context) -> NoReturn:
        self.errors[status.code_of(error).name] += 1
        await tell(method, error, context)


def _boxed(data: bytes) -> list[bytes]:
    """gRPC holds what it hands out until the call ends; out of a box the bytes can be taken and let go before."""
    return [data]


def parse(request: type[Request], data: bytes) -> Request:
    """The request, if each of its bytes means something to this version."""
    scan(data, cast(Descriptor, request.DESCRIPTOR))
    try:
        return request.FromString(data)
    except DecodeError as error:
        # What is left after the scan is text that is not UTF-8.
        raise InvalidRequest(
            f"{request.DESCRIPTOR.full_name!r} cannot be read; texts must be UTF-8", reason="malformed_message"
        ) from error


def trace_of(context: Context) -> tuple[str, str]:
    """The caller's trace context as it came, or empty. gRPC itself leaves but one traceparent of several."""
    parent = ""
    states: list[str] = []
    for key, value in context.invocation_metadata() or ():
        if key == _TRACEPARENT and isinstance(value, str):
            parent = value
        elif key == _TRACESTATE and isinstance(value, str):
            states.append(value)
    return parent, ",".join(states)


async def tell(method: str, error: Exception, context: Context) -> NoReturn:
    """End the call with the error's status. What the caller must not see goes to the log under an incident id."""
    incident = ""
    if status.is_internal(error):
        incident = secrets.token_hex(8)
        told = {"incident": incident, "rpc_method": method}
        if isinstance(error, SandboxdError):  # it says what is wrong; where in our code it was said helps nobody
            _log.error("call failed", extra={**told, "reason": error.reason, "error": error.message})
        else:
            _log.error("call failed", exc_info=error, extra=told)
    # gRPC keeps what abort raises in a reference cycle, and through the frames of this error hung the request's bytes.
    error.__traceback__ = error.__cause__ = error.__context__ = None
    await context.abort(
        status.code_of(error),
        status.message_of(error, incident),
        ((status.DETAILS_KEY, status.details_of(error, incident)),),
    )
