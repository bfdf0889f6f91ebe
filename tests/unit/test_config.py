from pathlib import Path

import pytest

from sandboxd import config
from sandboxd.errors import ConfigInvalid
from sandboxd.listening import Loopback


def complaint(text: str) -> str:
    with pytest.raises(ConfigInvalid) as caught:
        config.parse(text.encode(), "c.yaml")
    return caught.value.message


def test_works_without_a_file() -> None:
    found = config.load(None, as_root=True)
    assert found.socket_path == Path("/run/sandboxd/sandboxd.sock")
    assert found.state_dir == "/var/lib/sandboxd"
    assert [sink.type for sink in found.sinks] == ["stdout"]
    assert found.runtimes.process.ids.start == 0x70000000


@pytest.mark.parametrize("text", ["", "# nothing\n", "{}"])
def test_empty_file_is_the_defaults(text: str) -> None:
    assert config.parse(text.encode(), "c.yaml") == config.load(None)


def test_ordinary_user_has_paths_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", "/run/user/7")
    monkeypatch.setenv("XDG_STATE_HOME", "/home/x/.state")
    found = config.load(None, as_root=False)
    assert found.socket_path == Path("/run/user/7/sandboxd/sandboxd.sock")
    assert found.state_dir == "/home/x/.state/sandboxd"


def test_relative_xdg_directories_are_ignored_as_their_standard_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/x")
    monkeypatch.setenv("XDG_RUNTIME_DIR", "run")
    monkeypatch.setenv("XDG_STATE_HOME", "state")
    found = config.load(None, as_root=False)
    assert found.state_dir == "/home/x/.local/state/sandboxd"
    assert found.socket_path == Path("/home/x/.local/state/sandboxd/run/sandboxd.sock")


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
        ("sinks:\n  - type: ../evil\n", "c.yaml:2: sinks.0.type"),
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
    ("opa", "expected"),
    [
        ("url: 'ftp://x'", "opa.url: has an unknown scheme; use http, https or unix"),
        ("url: 'opa.example.org:8181'", "opa.url: has an unknown scheme"),
        ("url: ''", "opa.url: has an unknown scheme"),
        ("url: 'http://'", "opa.url: has no host; use http://HOST:PORT"),
        ("url: 'http://x:port'", "opa.url: is not a URL"),
        ("url: 'http://x:99999'", "opa.url: is not a URL"),
        ("url: 'http://[::1'", "opa.url: is not a URL"),
        ("url: 'unix:opa.sock'", "opa.url: must name an absolute path"),
        ("url: 'unix://opa.sock'", "opa.url: must name an absolute path"),
        ("url: 'https://me:secret@x'", "opa.url: is a server and no more; leave out user"),
        ("url: 'https://x?pretty'", "opa.url: is a server and no more"),
        ("url: 'https://x#y'", "opa.url: is a server and no more"),
        ('url: "http://x/a\\r\\nX-Evil: 1"', "opa.url: has characters that a URL cannot have"),
        ("url: 'http://x/é'", "opa.url: has characters that a URL cannot have"),
        ("url: 'https://x', certificate: /c", "certificate and key are two halves of one identity"),
        ("url: 'https://x', key: /k", "certificate and key are two halves of one identity"),
        ("url: 'https://x', ca: ca.pem", "opa.ca: must be an absolute path, got 'ca.pem'"),
        ("url: 'https://x', token_file: token", "opa.token_file: must be an absolute path"),
        ("url: 'http://127.0.0.1', ca: /ca", "ca, certificate and key have no use over http; use https"),
        ("url: 'unix:///s', certificate: /c, key: /k", "have no use over unix"),
        ("url: 'http://10.0.0.1', token_file: /t", "a token over http can be read on its way; use https"),
        ("url: 'http://opa.example.org', token_file: /t", "a token over http can be read on its way"),
        ("url: 'http://localhost.example.org', token_file: /t", "a token over http can be read on its way"),
        ("url: 'https://x', decision: ../v1/policies", "opa.decision"),
        ("url: 'https://x', decision: a//b", "opa.decision"),
        ("url: 'https://x', decision: 'a?b'", "opa.decision"),
        ("url: 'https://x', max_response_bytes: 0", "opa.max_response_bytes"),
        ("url: 'https://x', breaker_failures: 0", "opa.breaker_failures"),
        ("url: 'https://x', breaker_seconds: .inf", "opa.breaker_seconds"),
        ("url: 'https://x', cacheable: 'yes'", "opa.cacheable"),
        ("url: 'https://x', tokn: x", "opa.tokn: unknown key"),
    ],
)
def test_complaint_about_the_opa_server_names_what_would_mend_it(opa: str, expected: str) -> None:
    found = complaint(f"policy:\n  engine: opa\n  opa: {{{opa}}}\n")
    assert expected in found
    assert found.startswith("c.yaml:3: policy.opa")


@pytest.mark.parametrize(
    ("webhook", "expected"),
    [
        ("url: 'http://hooks.example.org'", "webhook.url: can be read on its way; use https://HOST"),
        ("url: 'http://localhost.example.org'", "webhook.url: can be read on its way"),
        ("url: 'http://10.0.0.1'", "webhook.url: can be read on its way"),
        ("url: 'unix:///s'", "webhook.url: can be read on its way"),
        ("url: 'file:///etc/passwd'", "webhook.url: can be read on its way"),
        ("url: 'https://'", "webhook.url: can be read on its way"),
        ("url: 'https://me:secret@x'", "webhook.url: holds a user or a fragment"),
        ("url: 'https://x:port'", "webhook.url: is not a URL"),
        ("url: 'https://x', token_file: token", "webhook.token_file: must be an absolute path"),
        ("{}", "webhook"),
    ],
)
def test_complaint_about_the_webhook_names_what_would_mend_it(webhook: str, expected: str) -> None:
    found = complaint(f"approvals:\n  max_pending: 5\n  webhook: {{{webhook}}}\n")
    assert expected in found
    assert found.startswith("c.yaml:3: approvals.webhook")


@pytest.mark.parametrize(
    "url", ["https://hooks.example.org/a?b=c", "http://127.0.0.1:9", "http://[::1]:9", "http://localhost"]
)
def test_ways_to_a_webhook_are_taken(url: str) -> None:
    found = config.parse(f"approvals: {{webhook: {{url: '{url}', token_file: /t}}}}\n".encode(), "c.yaml").approvals
    assert found.webhook is not None and found.webhook.url == url
    assert (found.wait_seconds, found.max_pending, found.max_per_minute) == (0.0, 20, 10)


@pytest.mark.parametrize(
    "opa",
    [
        "url: 'http://127.0.0.1:8181', token_file: /t",
        "url: 'http://127.9.9.9/opa/', token_file: /t",
        "url: 'http://[::1]:8181', token_file: /t",
        "url: 'http://localhost:8181', token_file: /t",
        "url: 'unix:///run/opa/opa.sock', token_file: /t",
        "url: 'https://opa.example.org', ca: /ca, certificate: /c, key: /k, token_file: /t",
        "url: 'http://opa.example.org'",
    ],
)
def test_ways_to_an_opa_server_are_taken(opa: str) -> None:
    found = config.parse(f"policy: {{engine: opa, opa: {{{opa}}}}}\n".encode(), "c.yaml").policy.opa
    assert found is not None
    assert (found.decision, found.cacheable, found.max_response_bytes) == ("sandboxd/decision", False, 1 << 20)
    assert found.private is (found.url != "http://opa.example.org")


def test_a_node_that_is_told_to_run_nothing_may_keep_its_opa_server_configured() -> None:
    text = "policy: {engine: deny_all, opa: {url: 'http://127.0.0.1:8181'}}\n"
    assert config.parse(text.encode(), "c.yaml").policy.engine == "deny_all"


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


@pytest.mark.parametrize(
    ("listen", "found"),
    [
        ("127.0.0.1:9464", Loopback("127.0.0.1", 9464)),
        ("unix:///run/x/metrics.sock", Path("/run/x/metrics.sock")),
    ],
)
def test_metrics_are_read_at_loopback_or_beside_the_api(listen: str, found: object) -> None:
    text = f"listen: [{{unix: /run/x/s.sock}}]\nmetrics: {{listen: '{listen}'}}\n"
    assert config.parse(text.encode(), "c.yaml").metrics.place == found


def test_metrics_are_nowhere_unless_asked_for() -> None:
    assert config.load(None).metrics.place is None


@pytest.mark.parametrize(
    ("metrics", "says"),
    [
        ("0.0.0.0:9464", "c.yaml:3: metrics.listen: can be reached from elsewhere"),
        ("localhost:9464", "c.yaml:3: metrics.listen: is no address with a port"),
        ("unix:///run/y/metrics.sock", "must be another socket beside '/run/x/s.sock'"),
        ("unix:///run/x/s.sock", "must be another socket beside '/run/x/s.sock'"),
        ("unix:///run/x/s.sock.lock", "must be another socket beside '/run/x/s.sock'"),
        ("unix:///run/x/inner/metrics.sock", "must be another socket beside '/run/x/s.sock'"),
    ],
)
def test_metrics_elsewhere_are_refused(metrics: str, says: str) -> None:
    assert says in complaint(f"listen: [{{unix: /run/x/s.sock}}]\nmetrics:\n  listen: '{metrics}'\n")
