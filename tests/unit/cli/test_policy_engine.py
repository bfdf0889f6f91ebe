from pathlib import Path

import pytest

from sandboxd.cli.policy_engine import running, settings
from sandboxd.errors import PolicyInvalid
from sandboxd.model import Verdict
from sandboxd.settings.paths import shipped
from tests.bundles import ALLOW, public_file, release
from tests.fakes.policy import question


def test_without_a_path_the_shipped_policy_is_meant() -> None:
    assert settings((), None).bundle_paths == (shipped("policies"),)


def test_paths_are_meant_from_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    policy = settings([Path("a")], Path("k"))
    assert (policy.bundle_paths, policy.key_path) == ((tmp_path / "a",), tmp_path / "k")


async def test_policy_is_proved_and_its_signature_verified_as_in_the_daemon(tmp_path: Path) -> None:
    bundle = release(tmp_path / "b.tar.gz", 1)
    async with running(settings([bundle], public_file(tmp_path))) as engine:
        assert (await engine.decide(question())).verdict is Verdict.ALLOW
    (tmp_path / "p.rego").write_bytes(ALLOW.replace(b"true", b'"yes"'))
    for paths, key in (([bundle], public_file(tmp_path, "ec")), ([tmp_path / "p.rego"], None)):
        with pytest.raises(PolicyInvalid):
            async with running(settings(paths, key)):
                pytest.fail("it must not come this far")
