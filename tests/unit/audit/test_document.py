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
