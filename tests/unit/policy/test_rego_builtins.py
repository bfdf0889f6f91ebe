import pytest

from sandboxd.errors import PolicyInvalid
from sandboxd.policy.rego_builtins import check_calls, package

HEAD = "package sandboxd\nimport rego.v1\n"


def check(text: str) -> None:
    check_calls([("p.rego", HEAD + text)])


@pytest.mark.parametrize(
    "text",
    [
        "a := count(input.x)",
        'a if { startswith(lower(input.x), "y") }',
        "f(x) := x + 1\na := f(1)",
        "default f(_) := 1\na := f(2)",
        "lib.f(x) := x\na := lib.f(1)",
        "default\nf(_) := 1\na := f(2)",
        "b := [1]\nf(x) := x\na := f(2)",
        "a := data.lib.f(1)",
        "import data.other.strings\na := strings.f(1)",
        "import data.other as o\na := o.f(1)",
        "# http.send(input)\na := 1",
        'a := "http.send(1)"',
        "a := `http.send(1)`",
        'a := "\\"http.send(1)"',
        "a := 1 + (2 * 3)",
        "a if not (input.x)",
        "a contains x if { some x in (input.y) }",
        'a if lower(input.x) == "y" with input.x as "Y"',
        'a if b with input as {"x": 1} with input.x as 2',
    ],
)
def test_proven_and_own_functions_pass(text: str) -> None:
    check(text)


@pytest.mark.parametrize(
    ("text", "name", "line"),
    [
        ('deny if http.send({"url": "x"})', "http.send", 3),
        ("a := 1\nb := net.cidr_contains(input.a, input.b)", "net.cidr_contains", 4),
        ("a := nosuch(1)", "nosuch", 3),
        ("a if {\nhttp.send(1)\n}", "http.send", 4),
        ("a if {\n\tprint(1)\n}", "print", 4),
        ("a := http.send (1)", "http.send", 3),
        ("a := http.send\n(1)", "http.send", 3),
        ("deny if\nhttp.send(1)", "http.send", 4),
        ("a :=\nhttp.send(1)", "http.send", 4),
        ("a := 1 +\n# more\nprint(1)", "print", 5),
        ("deny if not\nhttp.send(1)", "http.send", 4),
        ("a := 1 with input.x as\ntrace(1)", "trace", 4),
        ("a := http.send # x\n (1)", "http.send", 3),
        ('a := http["send"](1)', "]", 3),
        ("a := [http.send(1)]", "http.send", 3),
        ('a := "\\\\" ; b := http.send("\\"")', "http.send", 3),
        ("a := time.now_ns()", "time.now_ns", 3),
        ("a := opa.runtime()", "opa.runtime", 3),
        ("a := regex.replace(input.a, input.b, input.c)", "regex.replace", 3),
        ("now_ns(x) := x\na := time .now_ns()", ".now_ns", 4),
        ("now_ns(x) := x\na := time.\nnow_ns()", ".now_ns", 5),
        ("b := `\nimport data.uuid\n`\na := uuid.rfc4122(1)", "uuid.rfc4122", 6),
        ("import data.uuid.of.ours\na := uuid.rfc4122(1)", "uuid.rfc4122", 4),
        ('import data.uuid["of"]\na := uuid.rfc4122(1)', "uuid.rfc4122", 4),
        ("import data.other as uuid2\na := other.f(1)", "other.f", 4),
        ('a if lower("x") with lower as uuid.rfc4122', "lower", 3),
        ("f(x) := x\na if f(1)\n\twith data.sandboxd.f as uuid.rfc4122", "data.sandboxd.f", 5),
    ],
)
def test_any_other_function_is_refused_with_file_and_line(text: str, name: str, line: int) -> None:
    with pytest.raises(PolicyInvalid) as caught:
        check(text)
    assert caught.value.message.startswith(f"p.rego:{line}")
    assert repr(name) in caught.value.message


@pytest.mark.parametrize("text", ['a := $"{uuid.rfc4122(1)}"', "a := $`{uuid.rfc4122(1)}`", 'a if {\n$"x" == "x"\n}'])
def test_a_template_string_which_could_hide_a_call_is_refused(text: str) -> None:
    with pytest.raises(PolicyInvalid, match=r"^p\.rego:[34]: a template string"):
        check(text)


def test_a_dollar_within_text_is_no_template_string() -> None:
    check('a := "$x"\nb := `^a$`  # $"x"')


@pytest.mark.parametrize("package", ["sandboxd.lib", 'sandboxd["lib"]', "lib"])
def test_a_function_of_another_package_is_not_taken_for_one_of_this(package: str) -> None:
    """The engine looks into the calling package alone, and then has the built-in function of that name."""
    other = f"package {package}\nuuid.rfc4122(x) := x\n"
    with pytest.raises(PolicyInvalid) as caught:
        check_calls([("p.rego", HEAD + "a := uuid.rfc4122(1)"), ("q.rego", other)])
    assert caught.value.message.startswith("p.rego:3: 'uuid.rfc4122'")


def test_a_function_of_another_module_of_the_package_passes() -> None:
    other = "package sandboxd\nuuid.rfc4122(x) := x\n"
    check_calls([("p.rego", HEAD + "a := uuid.rfc4122(1)"), ("q.rego", other)])


@pytest.mark.parametrize(
    ("source", "path"),
    [
        ("# why\npackage a.b\nx := 1", ("a", "b")),
        ('package a["b-c"].d\n', ("a", "b-c", "d")),
        ("x := 1", ()),
    ],
)
def test_package_of_a_module_is_found(source: str, path: tuple[str, ...]) -> None:
    assert package(source) == path
