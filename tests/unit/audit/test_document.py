from pathlib import Path

from sandboxd.audit.document import DOCUMENT, main, render
from sandboxd.event import Event


def test_the_published_document_is_what_the_code_says() -> None:
    assert main(["--check"]) == 0, "run python -m sandboxd.audit.document"
    assert Path(__file__).resolve().parents[3] / "docs" / "events.md" == DOCUMENT


def test_every_event_has_its_section_once() -> None:
    rules = {kind.rule for kind in Event.__subclasses__()}
    assert len(rules) >= 10
    assert sorted(line[3:] for line in render().splitlines() if line.startswith("## ")) == sorted(rules)


def test_each_field_has_its_name_in_falcos_format() -> None:
    document = render()
    assert "| `command` | string | `proc.cmdline` |" in document
    assert "| `sandbox_id` | `container.id` |" in document
    assert all(line.count("|") == 4 for line in document.splitlines() if line.startswith("| `") and " | list" in line)
