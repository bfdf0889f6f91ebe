from pathlib import Path

import pytest

from sandboxd.errors import PolicyInvalid
from sandboxd.policy.bundle_versions import DIRECTORY, FILE, Versions
from sandboxd.policy.rego_bundle import Release


def test_newer_release_and_the_same_again_are_admitted(tmp_path: Path) -> None:
    versions = Versions(tmp_path)
    for version in (1, 1, 7, 7):
        versions.admit(Release(version, f"d{version}"))


def test_older_release_is_refused_also_after_a_restart(tmp_path: Path) -> None:
    Versions(tmp_path).admit(Release(3, "c"))
    for _ in range(2):
        with pytest.raises(PolicyInvalid, match="is release 2, and 3 was in force here") as refused:
            Versions(tmp_path).admit(Release(2, "b"))
        assert refused.value.reason == "policy_older"
    Versions(tmp_path).admit(Release(3, "c"))


def test_another_bundle_by_the_same_number_is_refused(tmp_path: Path) -> None:
    Versions(tmp_path).admit(Release(3, "c"))
    with pytest.raises(PolicyInvalid, match="is not the release 3 that was in force"):
        Versions(tmp_path).admit(Release(3, "other"))


@pytest.mark.parametrize("content", ["", "{", "[]", '{"version": 0, "digest": ""}', '{"version": "9", "digest": "x"}'])
def test_damaged_memory_refuses_rather_than_forgets(tmp_path: Path, content: str) -> None:
    Versions(tmp_path).admit(Release(3, "c"))
    (tmp_path / DIRECTORY / FILE).write_text(content)
    with pytest.raises(PolicyInvalid, match="is damaged"):
        Versions(tmp_path).admit(Release(4, "d"))


def test_memory_is_private_and_no_link_is_followed(tmp_path: Path) -> None:
    Versions(tmp_path).admit(Release(3, "c"))
    file = tmp_path / DIRECTORY / FILE
    assert file.stat().st_mode & 0o777 == 0o600
    file.rename(tmp_path / "elsewhere")
    file.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OSError, match="symbolic links"):
        Versions(tmp_path).admit(Release(4, "d"))
