"""Every module with logic has its unit tests at the same path below tests/unit. Run by `make check`.

A module without a function or method of its own is data and needs none. The rest of the exceptions are named here.
Likewise each fake is made once: of two by one name, one passes no contract suite.
"""

import ast
from collections import Counter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "sandboxd"
UNIT = ROOT / "tests" / "unit"

# Covered, but not by a unit test of the same name. The reason stands beside each.
ELSEWHERE: dict[str, str] = {}


def modules() -> list[Path]:
    found = (path.relative_to(PACKAGE) for path in PACKAGE.rglob("*.py"))
    return sorted(path for path in found if path.parts[:2] != ("rpc", "v1"))


def has_logic(module: Path) -> bool:
    """Does a module do anything: has it a function whose body is more than a docstring or `...`?"""
    tree = ast.parse((PACKAGE / module).read_text())
    functions = (node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))
    return any(not _is_constant(statement) for function in functions for statement in function.body)


def _is_constant(statement: ast.stmt) -> bool:
    return isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant)


def counterpart(module: Path) -> Path:
    return UNIT / module.parent / f"test_{module.stem.strip('_')}.py"


@pytest.mark.parametrize("module", [path for path in modules() if has_logic(path)], ids=str)
def test_module_has_its_unit_tests(module: Path) -> None:
    if str(module) in ELSEWHERE:
        assert not counterpart(module).exists(), f"{module} has unit tests now; take it out of ELSEWHERE"
        return
    assert counterpart(module).exists(), f"no {counterpart(module).relative_to(ROOT)}"


def test_exceptions_name_modules_that_exist() -> None:
    assert {name for name in ELSEWHERE if not (PACKAGE / name).exists()} == set()


@pytest.mark.parametrize("test", sorted(UNIT.rglob("test_*.py")), ids=lambda path: str(path.relative_to(UNIT)))
def test_unit_test_belongs_to_a_module(test: Path) -> None:
    relative = test.relative_to(UNIT)
    stem = relative.stem.removeprefix("test_")
    candidates = [PACKAGE / relative.parent / f"{name}.py" for name in (stem, f"__{stem}__")]
    assert relative.stem in ("test_imports", "test_mirror") or any(path.exists() for path in candidates)


def test_each_fake_is_made_in_one_place() -> None:
    trees = (ast.parse(path.read_text()) for path in (ROOT / "tests").rglob("*.py"))
    classes = (node.name for tree in trees for node in ast.walk(tree) if isinstance(node, ast.ClassDef))
    made = Counter(name for name in classes if name.startswith("Fake"))
    assert made["FakeEngine"] and [name for name, times in made.items() if times > 1] == []
