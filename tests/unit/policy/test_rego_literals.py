import json
from pathlib import Path

import pytest

from sandboxd.errors import PolicyInvalid
from sandboxd.policy import rego
from sandboxd.policy.document import PolicyInput
from sandboxd.policy.rego_literals import check_literals
from sandboxd.settings.policy import Policy

HEAD = "package sandboxd\nimport rego.v1\n"


@pytest.mark.parametrize(
    ("escape", "written"),
    [
        (r"\u00e9", "é"),
        (r"\u0041", "A"),
        (r"\/", "/"),
        (r"\u000a", r"\n"),
        (r"\u001B", r"\u001b"),
        (r"\u0022", r"\""),
        (r"\ud83d\ude00", "😀"),
        (r"\u007f", "\x7f"),
    ],
)
def test_an_escape_that_no_input_has_is_refused_with_what_to_write(escape: str, written: str) -> None:
    with pytest.raises(PolicyInvalid) as caught:
        check_literals([("a.rego", f'{HEAD}x := "b{escape}c"\n')])
    assert str(caught.value).startswith("a.rego:3: ")
    assert str(caught.value).endswith(f"an input never has {escape}; write {written}")


@pytest.mark.parametrize(
    "text", [r'"\" \\ \b \f \n \r \t \u0000 \u001b é 😀 /"', r'"\\u00e9"', r"`\u00e9 \/`", r'# "\u00e9"', r'"\\\\/"']
)
def test_text_that_an_input_has_is_taken(text: str) -> None:
    check_literals([("a.rego", f"{HEAD}x := 1 # {text}\ny := {text}\n")])


@pytest.mark.parametrize(
    "character", ["\0", "\b", "\t", "\n", "\f", "\r", "\x1b", '"', "\\", "/", "\x7f", "é", "😀", "\u2028"]
)
async def test_what_it_tells_to_write_is_what_the_engine_finds_in_an_input(tmp_path: Path, character: str) -> None:
    written = json.dumps(character, ensure_ascii=False)
    check_literals([("a.rego", f"x := {written}\n")])
    (tmp_path / "a.rego").write_text(f"{HEAD}default decision := false\ndecision if input.x == {written}\n")
    engine = await rego.create(Policy(paths=(str(tmp_path),), deadline_seconds=60.0))
    asked = PolicyInput(json.dumps({"x": character}, ensure_ascii=False).encode())
    assert (await engine.decide(asked)).verdict == "allow"
    await engine.close()


async def test_the_engine_refuses_it_at_load(tmp_path: Path) -> None:
    (tmp_path / "a.rego").write_text(HEAD + r'decision := input.x == "\u00e9"' + "\n")
    with pytest.raises(PolicyInvalid, match=r"a\.rego:3: .*; write é"):
        await rego.create(Policy(paths=(str(tmp_path),), deadline_seconds=60.0))
