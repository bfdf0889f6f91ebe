import json
import logging
from collections.abc import Iterator

import pytest

from sandboxd import logs


@pytest.fixture(autouse=True)
def _as_it_was() -> Iterator[None]:
    root, ours = logging.getLogger(), logging.getLogger("sandboxd")
    handlers, level, our_level = list(root.handlers), root.level, ours.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    ours.setLevel(our_level)


def test_json_line_holds_message_and_fields_and_stays_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    logs.set_up("info", "json")
    logging.getLogger("sandboxd.x").warning("it happened", extra={"path": "a\nb\x1b[0m"})
    (line,) = capsys.readouterr().err.splitlines()
    record = json.loads(line)
    assert (record["message"], record["level"], record["path"]) == ("it happened", "warning", "a\nb\x1b[0m")


def test_text_line_escapes_control_characters(capsys: pytest.CaptureFixture[str]) -> None:
    logs.set_up("info", "text")
    logging.getLogger("sandboxd.x").error("bad\nmessage", extra={"path": "\x1b"})
    (line,) = capsys.readouterr().err.splitlines()
    assert line.endswith('error sandboxd.x: bad\\nmessage path="\\u001b"')


def test_below_the_level_nothing_is_written_and_libraries_only_warn(capsys: pytest.CaptureFixture[str]) -> None:
    logs.set_up("debug", "text")
    logging.getLogger("grpc").info("chatter")
    assert capsys.readouterr().err == ""
    logging.getLogger("sandboxd.x").debug("ours")
    assert "ours" in capsys.readouterr().err


def test_traceback_is_a_field(capsys: pytest.CaptureFixture[str]) -> None:
    logs.set_up("info", "json")
    try:
        raise ValueError("why")
    except ValueError:
        logging.getLogger("sandboxd.x").exception("broke")
    assert "ValueError: why" in json.loads(capsys.readouterr().err)["traceback"]
