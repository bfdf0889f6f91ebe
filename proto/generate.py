"""Generates sandboxd/rpc/v1 from the protobuf files; `--check` only reports what is out of date and exits with 1.

The protobuf package stays `sandboxd.v1` while the Python modules live in `sandboxd.rpc.v1`, so imports between
generated modules are rewritten. Output depends on nothing but the sources and the pinned tools. Run by `make proto`.
"""

import re
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path

PROTO = Path(__file__).resolve().parent
TARGET = PROTO.parent / "sandboxd" / "rpc" / "v1"
MARKER = '"""Generated from proto/sandboxd/v1 by proto/generate.py. Do not edit."""\n'


def generated() -> dict[str, str]:
    """File name → text of every generated module."""
    sources = sorted(str(path.relative_to(PROTO)) for path in PROTO.glob("sandboxd/v1/*.proto"))
    scripts = Path(sysconfig.get_path("scripts"))
    with tempfile.TemporaryDirectory() as out:
        protoc = subprocess.run(
            [
                sys.executable,
                "-m",
                "grpc_tools.protoc",
                f"--proto_path={PROTO}",
                f"--plugin=protoc-gen-mypy={scripts / 'protoc-gen-mypy'}",
                f"--plugin=protoc-gen-mypy_grpc={scripts / 'protoc-gen-mypy_grpc'}",
                f"--python_out={out}",
                f"--grpc_python_out={out}",
                f"--mypy_out={out}",
                f"--mypy_grpc_out={out}",
                *sources,
            ],
            check=False,
            capture_output=True,
            text=True,
        )
        if protoc.returncode != 0:
            raise SystemExit(protoc.stderr)
        produced = sorted((Path(out) / "sandboxd" / "v1").iterdir())
        texts = {path.name: relocated(path.read_text()) for path in produced if path.suffix in (".py", ".pyi")}
    empty = {name for name, text in texts.items() if name.endswith("_pb2_grpc.py") and "Servicer" not in text}
    kept = {name: text for name, text in texts.items() if name.removesuffix("i") not in empty}
    return {"__init__.py": MARKER, **kept}


def relocated(text: str) -> str:
    """The module with its imports of sibling modules pointing to where they live."""
    text = re.sub(r"^from sandboxd\.v1 import ", "from sandboxd.rpc.v1 import ", text, flags=re.MULTILINE)
    return re.sub(r"\bsandboxd\.v1\.(\w+_pb2)", r"sandboxd.rpc.v1.\1", text)


def differences(texts: dict[str, str]) -> list[str]:
    """Names of files that are missing, different or left over in the target directory."""
    present = {path.name: path.read_text() for path in TARGET.glob("*.py*") if path.is_file()}
    return sorted(name for name in texts.keys() | present.keys() if texts.get(name) != present.get(name))


def main() -> int:
    texts = generated()
    changed = differences(texts)
    if sys.argv[1:] == ["--check"]:
        for name in changed:
            sys.stderr.write(f"sandboxd/rpc/v1/{name} is out of date; run make proto\n")
        return 1 if changed else 0
    if sys.argv[1:]:
        sys.stderr.write(f"unknown arguments {sys.argv[1:]!r}; the only one is --check\n")
        return 2
    TARGET.mkdir(parents=True, exist_ok=True)
    for name in changed:
        if name in texts:
            (TARGET / name).write_text(texts[name])
        else:
            (TARGET / name).unlink()
    return 0


if __name__ == "__main__":
    sys.exit(main())
