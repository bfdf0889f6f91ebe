"""The spawner's command line."""

from pathlib import Path

import pytest

from sandboxd.spawner import options

REQUIRED = [
    "--state-dir", "state", "--runtime-dir", "/run/s", "--id-start", "7", "--id-count", "64",
    "--daemon-user", "who", "--blank-stock", "3", "--drain-grace-seconds", "1.5",
]  # fmt: skip


def test_paths_are_absolute_and_all_that_the_daemon_reads_is_readable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    parsed = options.parse([*REQUIRED, "--config", "c.yaml", "--profile-path", "p", "--readable", "r"])
    assert parsed.state_dir == tmp_path / "state"
    assert parsed.profile_paths == (tmp_path / "p",)
    assert set(parsed.readable) == {tmp_path / name for name in ("state", "p", "r", "c.yaml")} | {Path("/run/s")}
    assert parsed.daemon_arguments() == ("--config", str(tmp_path / "c.yaml"))
    assert (parsed.id_start, parsed.id_count, parsed.blank_stock, parsed.drain_grace_seconds) == (7, 64, 3, 1.5)


def test_without_a_configuration_the_daemon_gets_none() -> None:
    assert options.parse(REQUIRED).daemon_arguments() == ()


@pytest.mark.parametrize("missing", REQUIRED[:4:2])
def test_missing_option_is_refused(missing: str) -> None:
    index = REQUIRED.index(missing)
    with pytest.raises(SystemExit):
        options.parse(REQUIRED[:index] + REQUIRED[index + 2 :])


def test_unknown_option_is_refused_and_none_may_be_cut_short() -> None:
    for extra in (["--nope", "1"], ["--read", "x"]):
        with pytest.raises(SystemExit):
            options.parse([*REQUIRED, *extra])


def test_only_harmless_variables_are_passed_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("A_SECRET", "x")
    monkeypatch.setenv("LD_PRELOAD", "x")
    monkeypatch.setenv("LANG", "C")
    assert not {"A_SECRET", "LD_PRELOAD"} & options.fresh_environment().keys()
    assert options.fresh_environment()["LANG"] == "C"
    assert {"A_SECRET", "LD_PRELOAD"} <= set(options.foreign_variables())
    assert "LANG" not in options.foreign_variables()
