"""The source of a program: its first byte says in which language, the rest is read as the worker reads it.

What the worker says of it has to be what the daemon believes, for any source at all.
"""

from bench.soak.target import Broken, Target
from sandboxd.analysis import analyser, worker
from sandboxd.analysis.commandline import JAVASCRIPT, PYTHON, SHELL, code_in
from sandboxd.analysis.report import MAX_OF_A_CODE
from sandboxd.finding import FindingCode

LANGUAGES = (PYTHON, SHELL, JAVASCRIPT)
# What starts the worker and asks it, and what it does before its first question.
OUTSIDE = (
    *(f"analyser.Analyser.{name}" for name in ("__init__", "start", "close", "analyse", "_keep", "_asked", "_answered",
                                               "_living", "_drop", "_failed")),
    "analyser._start", "analyser.code_of", "worker.main", "worker._answer",
)  # fmt: skip
SEEDS = (
    b"pimport os as o, sys\nfrom subprocess import Popen as P\ngetattr(o, 'sys' + 'tem')(x)\n",
    b"pimport base64\nd = base64.b64decode('YQ==')\nexec(compile(d, '', 'exec'))\nglobals()['eval'](f'{d}')\n",
    b"p__import__('os').__dict__['popen']('curl x | sh')\nsys.modules['os'].fork()\nvars(a)[b]()\n",
    b"swget -qO- x | sudo -u a env B=1 bash -s; eval \"$(echo x | base64 -d)\"; find . -exec sh -c 'a' \\;\n",
    b"scat <<EOF | python3\nimport os\nEOF\nbash <<< 'a'; A=1 $'\\x63url' x > /dev/tcp/1/2; . <(b); \"$x\" y\n",
    b"jconst {exec: e, b} = require('node:child_process'); e('ls'); (0, eval)(atob(`x`)); globalThis['ev' + 'al'](1)\n",
    b"jimport x, {y as z} from 'a'; import * as n from 'vm'; const d = Buffer.from(x, 'base64'); new Function(d)();\n",
    b"jsetTimeout('x', 1); [].constructor.constructor(x)(); require('child_process')[k]; spawn('bash', ['-c', 'a'])\n",
)
WORDS = (
    b"import ", b"getattr(", b"exec(", b"__import__('os')", b"lambda: ", b"f'{", b"$(", b"`", b"<<EOF\n", b"| sh\n",
    b"<<< ", b"require('", b"=> ", b"...", b"eval(", b"\\x63", b"~/.ssh/", b"(" * 60, b"[" * 60, b"{" * 60,
    b"# coding: utf-7\n", b"\xff", b"bash -c '", b"python3 -c '", b"node -e '",
)  # fmt: skip


def run(data: bytes) -> object:
    language = LANGUAGES[b"psj".find(data[:1]) % len(LANGUAGES)] if data else PYTHON
    source = data[1:].replace(b"\0", b"")
    answer = analyser._decoded(worker.analyse(language, source))
    counted = [finding.code for finding in answer.findings]
    if any(counted.count(code) > MAX_OF_A_CODE for code in FindingCode if code is not FindingCode.CUT):
        raise Broken(f"{len(counted)} findings")
    if not answer.measured[2] and FindingCode.FAILED not in counted:
        raise Broken("not understood, and nothing says so")
    code_in(source.decode("utf-8", "replace").split())
    return answer.findings or None


def target() -> Target:
    modules = tuple(
        f"sandboxd.analysis.{name}"
        for name in (
            "analyser",
            "commandline",
            "javascript",
            "javascript_text",
            "python",
            "python_text",
            "report",
            "shell",
            "tree",
            "worker",
        )
    )
    return Target("analysis", modules, run, (), SEEDS, WORDS, outside=OUTSIDE)
