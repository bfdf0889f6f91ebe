from sandboxd import config
from sandboxd.settings.sinks.ocsf import OcsfSettings
from tests.unit.settings.complaints import complaint


def test_a_file_of_ocsf_has_what_any_file_has() -> None:
    text = b"sinks: [{type: ocsf, path: /var/log/s/ocsf.jsonl, keep: 3, raw_data: false}]"
    (found,) = config.parse(text, "c.yaml").sinks
    assert isinstance(found, OcsfSettings)
    assert (found.name, found.keep, found.raw_data, found.mode) == ("ocsf", 3, False, "0600")
    assert found.directories == ("/var/log/s",)


def test_its_lines_have_one_format() -> None:
    assert "format" in complaint("sinks:\n  - {type: ocsf, path: /var/log/s/o, format: falco}\n")
    assert "must name a file" in complaint("sinks:\n  - {type: ocsf, path: /var/log/}\n")
