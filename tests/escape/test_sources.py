"""What a profile shows from the host is what was checked: its owner may swap it for a link at any moment after.

The compiler resolves and checks, the spawner mounts later and as root. Each step runs as it does in the product.
"""

import subprocess
import sys
from pathlib import Path

from sandboxd.profile.compile import compiled
from sandboxd.profile.load import load_profiles
from sandboxd.profile.seccomp import Memfd
from sandboxd.spawner.template import dump
from tests.daemon import CHECKOUT
from tests.skips import need_root

PROFILE = """
apiVersion: sandboxd.io/v1
kind: SandboxProfile
metadata: {{name: swapped}}
spec:
  extends: default
  description: shows what is swapped
  root:
    binds:
      - {{source: {source}, target: /opt/data, why: a test of it}}
"""
ADD_VIEW = """
import os, sys
from sandboxd.spawner import mounts, template
views = {t.name: t.view for t in template.load(sys.stdin.read())}
stage = mounts.Stage()
try:
    print(sorted(os.listdir(stage.add_view(views["swapped"]) + "/opt/data")))
except mounts.ViewInvalid as error:
    print(error)
"""


def shown(templates: str) -> str:
    """What the spawner's own code makes of these templates, in a process of its own."""
    command = [sys.executable, "-c", ADD_VIEW]
    run = subprocess.run(command, cwd=CHECKOUT, input=templates, capture_output=True, text=True, check=True)
    return run.stdout


def test_source_swapped_for_a_link_after_its_check_is_not_shown(outside: Path) -> None:
    need_root()
    outside.chmod(0o755)
    (outside / "private").mkdir(mode=0o700)
    (outside / "private" / "secret").touch()
    (outside / "data").mkdir(mode=0o755)
    (outside / "data" / "harmless").touch()
    (outside / "link").symlink_to("data")
    (outside / "profiles").mkdir()
    (outside / "profiles" / "p.yaml").write_text(PROFILE.format(source=outside / "link"))
    profiles = load_profiles([CHECKOUT / "profiles" / "default.yaml", outside / "profiles"])
    templates = dump((compiled(profiles.get("swapped"), Memfd.SYSCTL),))

    assert shown(templates) == "['harmless']\n", "the control: as it was checked it is shown, by way of a link too"
    (outside / "link").unlink()
    (outside / "link").symlink_to("private")
    assert shown(templates) == "['harmless']\n", "the link was resolved when it was checked"
    (outside / "data").rename(outside / "moved")
    (outside / "data").symlink_to("private")
    assert "secret" in {path.name for path in (outside / "data").iterdir()}, (
        "the control: whoever follows it sees the other directory"
    )
    assert "cannot bind" in shown(templates)
