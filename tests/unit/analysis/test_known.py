import pytest

from sandboxd.analysis import known
from sandboxd.finding import FindingCode


@pytest.mark.parametrize(
    ("names", "name", "code"),
    [
        (known.PYTHON, "os.system", FindingCode.PROCESS_START),
        (known.PYTHON, "popen2.whatever", FindingCode.PROCESS_START),
        (known.PYTHON, "eval", FindingCode.EVAL_STRING),
        (known.PYTHON, "os.path.join", None),
        (known.PYTHON, "system", None),
        (known.JAVASCRIPT, "axios.post", FindingCode.SOCKET_OPEN),
        (known.JAVASCRIPT, "child_process.exec", FindingCode.PROCESS_START),
        (known.JAVASCRIPT, "axios.post()", None),
        (known.JAVASCRIPT, "", None),
    ],
)
def test_names_mean_what_the_table_says(names: dict[str, FindingCode], name: str, code: FindingCode | None) -> None:
    assert known.meaning(names, name) is code


def test_credential_places_are_found_inside_a_path() -> None:
    assert known.credential_places("/home/a/.ssh/id_rsa") == [".ssh", "id_rsa"]
    assert known.credential_places("/var/run/secrets/kubernetes.io/x") == ["/run/secrets"]
    assert known.credential_places("/etc/hostname") == []
