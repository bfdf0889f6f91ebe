"""One trace through everything real: caller, daemon, OPA server and program, read behind an OpenTelemetry collector."""

import asyncio
import contextlib
import gzip
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import grpc
import pytest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from sandboxd.client import PolicyDenied
from sandboxd.rpc.v1 import sandbox_pb2, sandbox_pb2_grpc
from tests.collector import collector
from tests.daemon import Mode, RunningDaemon, start_daemon
from tests.fakes.http import ScriptedServer, response, says, scripted
from tests.integration.test_metrics import scrape, until
from tests.opa import free_port, opa_on_loopback
from tests.skips import need_root

POLICIES = Path(__file__).resolve().parents[2] / "policies"
TRACE, CALLER = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
TAKEN = response(b"", content="application/x-protobuf")
SECONDS = 120.0


def bodies(server: ScriptedServer, path: str) -> Iterator[bytes]:
    for asked in server.asked:
        if asked.line.split()[1] == path:
            zipped = asked.headers.get("content-encoding") == "gzip"
            yield gzip.decompress(asked.body) if zipped else asked.body


def spans(server: ScriptedServer) -> dict[str, list[Span]]:
    """By the service that told them."""
    found: dict[str, list[Span]] = {}
    for body in bodies(server, "/v1/traces"):
        for told in ExportTraceServiceRequest.FromString(body).resource_spans:
            names = [pair.value.string_value for pair in told.resource.attributes if pair.key == "service.name"]
            for scope in told.scope_spans:
                found.setdefault(names[0], []).extend(scope.spans)
    return found


async def eventually(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(SECONDS):
        while not holds():
            await asyncio.sleep(0.05)


def run(daemon: RunningDaemon, command: str, *metadata: tuple[str, str]) -> sandbox_pb2.RunResponse:
    """As any gRPC client of any language would."""
    request = sandbox_pb2.ExecuteRequest(argv=sandbox_pb2.ArgvProgram(argv=["/bin/sh", "-c", command]))
    request.agent.tool_name, request.agent.tool_use_id = "shell", "call_1"
    with grpc.insecure_channel(daemon.address) as channel:
        answer: sandbox_pb2.RunResponse = sandbox_pb2_grpc.SandboxServiceStub(channel).Run(request, metadata=metadata)
    return answer


@pytest.mark.root
async def test_a_callers_trace_goes_through_daemon_policy_server_program_and_record() -> None:
    need_root()
    with contextlib.ExitStack() as stack:
        async with scripted(says(TAKEN)) as server, collector(server.url) as made:
            tracing = (
                "--set=distributed_tracing.type=grpc",
                f"--set=distributed_tracing.address={made.grpc.removeprefix('http://')}",
            )
            opa = stack.enter_context(opa_on_loopback("http", [POLICIES], *tracing))
            settings = (
                f"policy:\n  engine: opa\n  deadline_seconds: 60\n  opa: {{url: '{opa.url}'}}\n"
                f"telemetry: {{otlp: {{url: '{made.http}'}}, metrics: false}}\n"
            )
            daemon = stack.enter_context(start_daemon(Mode.ROOT, settings))
            metadata = (("traceparent", f"00-{TRACE}-{CALLER}-01"), ("tracestate", "vendor=1"))
            answer = run(daemon, "echo $TRACEPARENT", *metadata)
            execution_id = answer.accepted.execution_id

            def of_the_trace(service: str) -> list[Span]:
                return [span for span in spans(server).get(service, []) if span.trace_id.hex() == TRACE]

            await eventually(lambda: bool(of_the_trace("sandboxd")) and len(of_the_trace("opa")) >= 2)
            root, *steps = of_the_trace("sandboxd")
            asked = of_the_trace("opa")
            records = daemon.records_of(execution_id)
            stack.close()
    assert (root.name, root.parent_span_id.hex(), root.trace_state) == ("execute_tool shell", CALLER, "vendor=1")
    assert [step.name for step in steps] == ["admission", "profile", "analysis", "decision", "acquire", "run"]
    assert {step.parent_span_id for step in steps} == {root.span_id}
    named = {step.name: step.span_id for step in steps}
    assert answer.stdout.decode() == f"00-{TRACE}-{named['run'].hex()}-01\n"
    assert {named["profile"], named["decision"]} <= {span.parent_span_id for span in asked}
    assert {record["ids"]["trace_id"] for record in records} == {TRACE}  # type: ignore[index]
    assert len(records) >= 4
    told = {pair.key: pair.value.string_value for pair in root.attributes}
    assert told["sandboxd.execution.id"] == execution_id and told["gen_ai.tool.call.id"] == "call_1"


@pytest.mark.root
async def test_without_telemetry_the_trace_goes_on_as_the_caller_sent_it() -> None:
    need_root()
    with start_daemon(Mode.ROOT) as daemon:
        header = f"00-{TRACE}-{CALLER}-01"
        assert run(daemon, "echo $TRACEPARENT", ("traceparent", header)).stdout.decode() == f"{header}\n"
        assert run(daemon, "echo ${TRACEPARENT-none}").stdout == b"none\n"


@pytest.mark.root
async def test_numbers_are_pushed_and_the_last_ones_at_the_end() -> None:
    need_root()
    async with scripted(says(TAKEN)) as server:
        settings = f"telemetry: {{otlp: {{url: '{server.url}'}}, traces: false, metrics_seconds: 3600}}\n"
        stack = contextlib.ExitStack()
        daemon = await asyncio.to_thread(stack.enter_context, start_daemon(Mode.ROOT, settings))
        await asyncio.to_thread(run, daemon, "true")
        await asyncio.to_thread(stack.close)
        (body,) = bodies(server, "/v1/metrics")
    (scope,) = ExportMetricsServiceRequest.FromString(body).resource_metrics[0].scope_metrics
    metrics = {metric.name: metric for metric in scope.metrics}
    assert metrics["sandboxd_executions_started_total"].sum.data_points[0].as_double == 1
    assert metrics["sandboxd_draining"].gauge.data_points[0].as_double == 1


@pytest.mark.root
@pytest.mark.parametrize("kind", ["gone", "silent"])
def test_a_collector_that_takes_nothing_keeps_no_program_from_running(kind: str) -> None:
    need_root()
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1] if kind == "silent" else 1
        metrics = free_port()
        settings = (
            f"telemetry: {{otlp: {{url: 'http://127.0.0.1:{port}', timeout_seconds: 0.2}}, metrics_seconds: 1}}\n"
            f"metrics: {{listen: '127.0.0.1:{metrics}'}}\n"
        )
        with start_daemon(Mode.ROOT, settings) as daemon:
            with daemon.client() as client:
                for _ in range(5):
                    assert client.run(["/bin/echo", "x"]).stdout == b"x\n"
                with pytest.raises(PolicyDenied):
                    client.run(["/bin/true"], env={"AWS_SECRET_ACCESS_KEY": "x"})
            after = until(metrics, lambda now: now("sandboxd_telemetry_failures_total", signal="traces") >= 1)
            assert after("sandboxd_telemetry_waiting") == 6
            assert after("sandboxd_telemetry_sent_total", signal="traces") == 0
            assert scrape(metrics)("sandboxd_executions_ended_total", end_reason="EXITED") == 5
        assert daemon.process.returncode == 0
