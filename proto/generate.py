"""Generates Python from the protobuf files; `--check` only reports what is out of date and exits with 1.

The protobuf packages keep their names while the Python modules live inside `sandboxd`, so imports between generated
modules are rewritten. Falco's names are also those of Falco's own client library: they go to a descriptor pool of their
own, so that both fit into one process. Output depends on nothing but the sources and the pinned tools. Run by
`make proto`.
"""

import re
import subprocess
import sys
import sysconfig
import tempfile
from dataclasses import dataclass
from pathlib import Path

PROTO = Path(__file__).resolve().parent


@dataclass(frozen=True, slots=True)
class Package:
    """`folder` of the sources becomes the Python package `module`. `pool`: the module with a descriptor pool for it."""

    folder: str
    module: str
    services: bool
    pool: str = ""

    @property
    def target(self) -> Path:
        return PROTO.parent / self.module.replace(".", "/")

    @property
    def marker(self) -> str:
        return f'"""Generated from proto/{self.folder} by proto/generate.py. Do not edit."""\n'


PACKAGES = (
    Package("sandboxd/v1", "sandboxd.rpc.v1", services=True),
    Package("falco", "sandboxd.sink.falco_api", services=False, pool="sandboxd.sink.falco_pool"),
)


def generated(package: Package) -> dict[str, str]:
    """File name → text of every generated module."""
    sources = sorted(str(path.relative_to(PROTO)) for path in PROTO.glob(f"{package.folder}/*.proto"))
    scripts = Path(sysconfig.get_path("scripts"))
    with tempfile.TemporaryDirectory() as out:
        outputs = [f"--python_out={out}", f"--mypy_out={out}"]
        if package.services:
            outputs += [f"--grpc_python_out={out}", f"--mypy_grpc_out={out}"]
        protoc = subprocess.run(
            [
                sys.executable,
                "-m",
                "grpc_tools.protoc",
                f"--proto_path={PROTO}",
                f"--plugin=protoc-gen-mypy={scripts / 'protoc-gen-mypy'}",
                f"--plugin=protoc-gen-mypy_grpc={scripts / 'protoc-gen-mypy_grpc'}",
                *outputs,
                *sources,
            ],
            check=False,
            capture_output=True,
            text=True,
        )
        if protoc.returncode != 0:
            raise SystemExit(protoc.stderr)
        produced = sorted((Path(out) / package.folder).iterdir())
        texts = {path.name: relocated(package, path.read_text()) for path in produced if path.suffix in (".py", ".pyi")}
    empty = {name for name, text in texts.items() if name.endswith("_pb2_grpc.py") and "Servicer" not in text}
    kept = {name: text for name, text in texts.items() if name.removesuffix("i") not in empty}
    return {"__init__.py": package.marker, **kept}


def relocated(package: Package, text: str) -> str:
    """The module with its imports of sibling modules pointing to where they live, and its pool."""
    former = re.escape(package.folder.replace("/", "."))
    text = re.sub(rf"^from {former} import ", f"from {package.module} import ", text, flags=re.MULTILINE)
    text = re.sub(rf"\b(?<!\.){former}\.(\w+_pb2)", rf"{package.module}.\1", text)
    if package.pool:
        text = text.replace("_descriptor_pool.Default()", "_pool.POOL")
        module, _, name = package.pool.rpartition(".")
        former_import = "from google.protobuf import descriptor_pool as _descriptor_pool\n"
        text = text.replace(former_import, f"from {module} import {name} as _pool\n")
    return text


def differences(package: Package, texts: dict[str, str]) -> list[str]:
    """Names of files that are missing, different or left over in the target directory."""
    present = {path.name: path.read_text() for path in package.target.glob("*.py*") if path.is_file()}
    return sorted(name for name in texts.keys() | present.keys() if texts.get(name) != present.get(name))


def main() -> int:
    check = sys.argv[1:] == ["--check"]
    if sys.argv[1:] and not check:
        sys.stderr.write(f"unknown arguments {sys.argv[1:]!r}; the only one is --check\n")
        return 2
    stale = False
    for package in PACKAGES:
        texts = generated(package)
        for name in differences(package, texts):
            path = package.target / name
            if check:
                sys.stderr.write(f"{path.relative_to(PROTO.parent)} is out of date; run make proto\n")
                stale = True
            elif name in texts:
                package.target.mkdir(parents=True, exist_ok=True)
                path.write_text(texts[name])
            else:
                path.unlink()
    return 1 if stale else 0


if __name__ == "__main__":
    sys.exit(main())
