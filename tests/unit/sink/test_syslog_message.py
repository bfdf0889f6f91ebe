import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandboxd.event import ExecutionRequested, Priority
from sandboxd.sink.syslog_message import LEAST_BYTES, SEVERITIES, Form, counted, message
from tests.fakes.events import made, violated
from tests.fakes.records import recorded

FORM = Form(facility=10, app_name="sandboxd", enterprise=32473, text=False)
MOST = 8192
# RFC 5424, 6, as far as we use it.
_MESSAGE = re.compile(
    r"<(?P<pri>\d{1,3})>1 (?P<time>\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z) (?P<host>[!-~]{1,255}) (?P<app>[!-~]{1,48}) "
    r"(?P<proc>[!-~]{1,128}) (?P<id>[!-~]{1,32}) "
    r'\[(?P<sd>[!-~]{1,32}(?: [a-z0-9]{1,32}="(?:[^"\\\]]|\\["\\\]])*")*)\](?: (?P<msg>[ -~]*))?',
    re.ASCII,
)
_PARAM = re.compile(r' ([a-z0-9]+)="((?:[^"\\\]]|\\["\\\]])*)"')


def parsed(data: bytes) -> tuple[re.Match[str], dict[str, str]]:
    match = _MESSAGE.fullmatch(data.decode("ascii"))
    assert match is not None, data
    return match, {name: re.sub(r"\\(.)", r"\1", value) for name, value in _PARAM.findall(match["sd"])}


def test_a_message_has_header_ids_and_the_event() -> None:
    record = recorded(violated("why"), 7)
    match, params = parsed(message(record, FORM, MOST))
    assert (match["pri"], match["host"], match["app"]) == ("84", "node", "sandboxd")
    assert (match["proc"], match["id"]) == ("b" * 32, "sandbox.violated")
    assert match["time"] == record.time[:26] + "Z"
    assert match["sd"].startswith("sandboxd@32473 ")
    assert params == {
        "seq": "7",
        "sha256": record.digest,
        "tenant": "local",
        "subject": "uid:0",
        "execution": "e" * 32,
        "sandbox": "5" * 32,
        "trace": "t" * 32,
    }
    assert json.loads(match["msg"])["output_fields"]["audit.seq"] == 7


def test_a_text_message_is_the_sentence() -> None:
    match, _ = parsed(message(recorded(violated("why")), Form(10, "sandboxd", 32473, text=True), MOST))
    assert "sandbox.violated" in match["msg"]
    assert "{" not in match["msg"]


@pytest.mark.parametrize(("priority", "severity"), SEVERITIES.items())
def test_priorities_are_severities(priority: Priority, severity: int) -> None:
    record = recorded(violated())
    record = type(record)(**{**{name: getattr(record, name) for name in record.__slots__}, "priority": priority})
    match, _ = parsed(message(record, FORM, MOST))
    assert int(match["pri"]) == 80 + severity


@given(st.text(), st.text(), st.text(max_size=300), st.sampled_from([LEAST_BYTES, 1000, MOST]), st.booleans())
def test_whatever_a_tenant_wrote_the_message_is_well_formed_and_within_its_bound(
    tenant: str, detail: str, node: str, most: int, text: bool
) -> None:
    record = recorded(violated(detail, tenant=tenant), 2**62, node)
    data = message(record, Form(23, "a" * 48, 2**32 - 1, text=text), most)
    assert len(data) <= most
    match, params = parsed(data)
    assert (params["seq"], params["sha256"]) == (str(2**62), record.digest)
    if match["msg"] and not text:
        json.loads(match["msg"])


@pytest.mark.parametrize("most", [LEAST_BYTES, 2048, 4096])
def test_what_is_too_long_is_shortened_and_says_so_and_which_record_has_it_all(most: int) -> None:
    labels = tuple((f"label-{number}", "\U0001f4a9" * 500) for number in range(10))
    record = recorded(made(ExecutionRequested, tenant="\U0001f4a9" * 256, command="c" * 512, labels=labels))
    whole, _ = parsed(message(record, FORM, 1 << 20))
    data = message(record, FORM, most)
    assert len(data) <= most
    match, params = parsed(data)
    assert int(params["shortened"]) == len(whole[0])
    assert params["sha256"] == record.digest
    if most > LEAST_BYTES:
        assert json.loads(match["msg"])["rule"] == "execution.requested"


def test_nothing_of_a_tenants_ends_a_value_early() -> None:
    tenant = 'a"] [x@1 y="\\"\n<13>1 - - - - - forged'
    _, params = parsed(message(recorded(violated(tenant=tenant)), FORM, MOST))
    assert params["tenant"] == tenant.replace("\n", "\\x0a")


def test_a_message_on_a_stream_has_its_length_before_it() -> None:
    assert counted(b"abc") == b"3 abc"
