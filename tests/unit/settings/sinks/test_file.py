import pytest

from sandboxd import config
from tests.unit.settings.complaints import complaint


def test_a_file_has_defaults_that_are_private_and_bounded() -> None:
    (sink,) = config.parse(b"sinks: [{type: file, path: /var/log/sandboxd/events.jsonl}]", "c.yaml").sinks
    assert sink.directories == ("/var/log/sandboxd",)
    told = sink.model_dump()
    assert (told["mode"], told["format"], told["keep"], told["fsync"]) == ("0600", "falco", 8, False)


@pytest.mark.parametrize(
    ("sink", "expected"),
    [
        ("{type: file}", "path"),
        ("{type: file, path: events.jsonl}", "must be an absolute path"),
        ("{type: file, path: /var/log/}", "must name a file"),
        ("{type: file, path: /var/log/../x}", "must name a file"),
        ("{type: file, path: //var/log/x}", "must name a file"),
        ("{type: file, path: /var/log/x, rotate_bytes: 100}", "a few records"),
        ("{type: file, path: /var/log/x, keep: 0}", "keep"),
        ("{type: file, path: /var/log/x, mode: '0644'}", "mode"),
        ("{type: file, path: /var/log/x, format: xml}", "format"),
    ],
)
def test_complaint_names_what_is_wrong_with_a_file(sink: str, expected: str) -> None:
    assert expected in complaint(f"sinks:\n  - {sink}\n")


@pytest.mark.parametrize("path", ["/var/s/journal/x.jsonl", "/var/s/x", "/run/s/x"])
def test_what_is_the_daemons_own_is_no_place_for_a_sink(path: str) -> None:
    text = f"state_dir: /var/s\nlisten: [{{unix: /run/s/s.sock}}]\nsinks: [{{type: file, path: {path}}}]\n"
    assert "which is sandboxd's own" in complaint(text)
