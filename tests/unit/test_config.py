from pathlib import Path

import pytest

from sandboxd import config
from sandboxd.errors import ConfigInvalid
from tests.unit.settings.complaints import complaint


def test_works_without_a_file() -> None:
    found = config.load(None, as_root=True)
    assert found.socket_path == Path("/run/sandboxd/sandboxd.sock")
    assert found.state_dir == "/var/lib/sandboxd"
    assert [sink.type for sink in found.sinks] == ["stdout"]
    assert found.runtimes.process.ids.start == 0x70000000


@pytest.mark.parametrize("text", ["", "# nothing\n", "{}"])
def test_empty_file_is_the_defaults(text: str) -> None:
    assert config.parse(text.encode(), "c.yaml") == config.load(None)


def test_values_of_the_file_are_taken(tmp_path: Path) -> None:
    file = tmp_path / "c.yaml"
    file.write_text(
        "listen:\n  - unix: /tmp/x.sock\nstate_dir: /tmp/state\nprofiles: {paths: [/etc/p]}\n"
        "policy: {engine: deny_all, deadline_seconds: 2}\nruntimes: {process: {blank_stock: 0}}\n"
        "audit: {durability: fsync}\nsinks: []\nlimits: {max_concurrent: 3}\nallowed_uids: [1000]\n"
    )
    found = config.load(file)
    assert found.socket_path == Path("/tmp/x.sock")
    assert found.profile_paths == (Path("/etc/p"),)
    assert (found.policy.engine, found.policy.deadline_seconds) == ("deny_all", 2.0)
    assert (found.audit.durability, found.sinks, found.allowed_uids) == ("fsync", (), (1000,))


def test_shipped_profiles_and_policies_exist() -> None:
    found = config.load(None)
    assert all(path.is_dir() for path in (*found.profile_paths, *found.policy.bundle_paths))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("policy:\n  engnie: rego\n", "c.yaml:2: policy.engnie: unknown key"),
        ("state_dir: /a\nstate_dir: /b\n", "c.yaml:2: found duplicate key"),
        ("listen:\n  - tcp: 0.0.0.0:1\n", "c.yaml:2: listen.0: a tcp listener needs TLS identities"),
        ("listen: []\n", "c.yaml:1: listen"),
        ("listen:\n  - {}\n", "c.yaml:2: listen.0: a listener needs its type"),
        ("state_dir: here\n", "c.yaml:1: state_dir: must be an absolute path, got 'here'"),
        ("limits:\n\n  max_concurrent: '3'\n", "c.yaml:3: limits.max_concurrent: input should be a valid integer"),
        ("limits: {max_concurrent: 0}\n", "c.yaml:1: limits.max_concurrent: input should be greater"),
        ("limits: {max_concurrent: true}\n", "c.yaml:1: limits.max_concurrent"),
        ("sinks:\n  - type: stdout\n  - type: stdout\n", "c.yaml:1: sinks: 'stdout' is there twice"),
        ("sinks:\n  - type: ../evil\n", "c.yaml:2: sinks.0: input tag '../evil'"),
        ("runtimes: {process: {ids: {start: 0}}}\n", "c.yaml:1: runtimes.process.ids.start"),
        ("runtimes: {process: {ids: {start: 4294967000, count: 65536}}}\n", "start + count is over"),
        ("pools: {python: 4}\n", "c.yaml:1: pools: unknown key"),
        ("policy: {deadline_seconds: .inf}\n", "c.yaml:1: policy.deadline_seconds"),
        ("policy: {deadline_seconds: .nan}\n", "c.yaml:1: policy.deadline_seconds"),
        ("policy: {engine: opa}\n", "c.yaml:1: policy: engine 'opa' needs a server; set opa: {url:"),
        ("policy: {opa: {url: 'http://127.0.0.1:1'}}\n", "would not be asked; set engine: opa"),
        ("policy: {engine: opa, paths: [/p], opa: {url: 'http://[::1]'}}\n", "paths are for the embedded engine"),
        ("policy: {engine: deny_all, verification_key: /k}\n", "verification_key is for the embedded engine"),
        ("policy: {verification_key: k.pub}\n", "policy.verification_key: must be an absolute path"),
        ("policy: {shadow: {}}\n", "policy.shadow.paths: field required"),
        ("policy: {shadow: {paths: []}}\n", "policy.shadow.paths: "),
        ("policy: {shadow: {paths: [/p], queue: 0}}\n", "policy.shadow.queue: "),
        ("policy: {engine: opa, opa: {}}\n", "c.yaml:1: policy.opa.url: field required"),
        ("- 1\n", "c.yaml:1: expected keys and values"),
        ("sinks: stdout\n", "c.yaml:1: sinks: must be a list, got 'stdout'"),
        ("sinks: [stdout]\n", "c.yaml:1: sinks.0: must be keys and values, got 'stdout'"),
        ("audit: 1\n", "c.yaml:1: audit: must be keys and values, got 1"),
        ("response: {rules: kill}\n", "c.yaml:1: response.rules: must be keys and values, got 'kill'"),
        ("[", "c.yaml:1:"),
        ("x: 2001-01-01\n", "date is not a value"),
        ("log: !!python/object:os.system x\n", "TaggedScalar is not a value"),
        ("1: 2\n", "c.yaml:1: 1: "),
        ("a: &a [*a]\n", "c.yaml:1: a: unknown key"),
        ("a: " + "[" * 30 + "]" * 30, "nested deeper"),
        ("\ttab: x\n", "c.yaml:1:"),
        ("!!set c{\n", "c.yaml: not YAML"),
        ("%YAML 1.0\n1\n22", "c.yaml: not YAML"),
        ("log:\n  <<: {level: loud}\n", "c.yaml:1: log.level: input should be"),
        ("<<: \n  listen:\n    - tcp: x\n", "c.yaml:1: listen.0: a tcp listener"),
        ("listen:\n ?  - tcp:\n", "c.yaml: not YAML"),
    ],
)
def test_complaint_names_line_and_value(text: str, expected: str) -> None:
    assert expected in complaint(text)


@pytest.mark.parametrize(
    "wrong",
    [
        "{type: otlp, url: 'http://h', headers: {X-Key: s3cret}}",  # the section as a whole
        "{type: otlp, url: 'https://h', headers: {X-Key: \"s3cret\\n\"}}",  # the value
        "{type: otlp, url: 'https://h', headers: s3cret}",
        "{headers: {X-Key: s3cret}}",
        "{type: otlp, url: 'https://h', headers: {X-Key: s3cret}}, {type: otlp, url: 'https://h'}",  # all sinks
    ],
)
def test_what_a_header_holds_is_in_no_complaint(wrong: str) -> None:
    found = complaint(f"sinks: [{wrong}]\n")
    assert found.startswith("c.yaml:1: sinks")
    assert "s3cret" not in found


def test_bytes_that_are_not_text_are_refused() -> None:
    with pytest.raises(ConfigInvalid, match="not UTF-8"):
        config.parse(b"\xff", "c.yaml")


def test_missing_and_huge_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigInvalid, match="cannot read"):
        config.load(tmp_path / "nothing.yaml")
    big = tmp_path / "big.yaml"
    big.write_bytes(b"#" * (config.MAX_FILE_BYTES + 1))
    with pytest.raises(ConfigInvalid, match="over"):
        config.load(big)
