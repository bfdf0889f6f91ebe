"""Tables of sources and all that is found in them."""

import pytest

from sandboxd.analysis import javascript
from sandboxd.analysis.commandline import Code
from sandboxd.analysis.report import Report

EXEC = {"import child_process", "process.start child_process.exec"}
FOUND: dict[str, set[str]] = {
    # modules
    "import 'fs'": {"import fs"},
    "import fs from 'node:fs'": {"import fs"},
    "import * as fs from 'fs'": {"import fs"},
    "export * from './a.js'": {"import ./a.js"},
    "const fs = require('fs')": {"import fs"},
    "const {readFile} = require('node:fs')": {"import fs"},
    "const fs = await import('fs')": {"import fs"},
    "require(name)": {"import.dynamic require"},
    "import(name)": {"import.dynamic import"},
    "require('child_' + name)": {"import.dynamic require"},
    "const r = require; r('fs')": {"import fs"},
    "process.mainModule.require('fs')": {"import fs", "import.dynamic process.mainModule.require"},
    # processes, under any name
    "require('child_process').exec(x)": EXEC,
    "require('child_' + 'process').exec(x)": EXEC,
    "require(`child_process`)['exec'](x)": EXEC,
    "const {exec} = require('child_process'); exec(x)": EXEC,
    "const {exec: run} = require('node:child_process'); run(x)": EXEC,
    "const cp = require('child_process'), e = cp.exec; e(x)": EXEC,
    "let cp; cp = require('child_process'); cp.exec(x)": EXEC,
    "import {exec as e} from 'child_process'; e(x)": EXEC,
    "import * as cp from 'child_process'; cp.exec(x)": EXEC,
    "import cp from 'child_process'; cp?.exec(x)": EXEC,
    "(await import('child_process')).exec(x)": EXEC,
    "import {exec} from 'child_process'; lines.map(exec)": EXEC,
    "require('child_process')[name](x)": {"import child_process", "call.dynamic child_process"},
    "new Deno.Command(x)": {"process.start Deno.Command"},
    # sockets
    "require('net').connect(x)": {"import net", "socket.open net.connect"},
    "fetch(x)": {"socket.open fetch"},
    "globalThis.fetch(x)": {"socket.open fetch"},
    "new WebSocket(x)": {"socket.open WebSocket"},
    "import axios from 'axios'; axios.post(x)": {"import axios", "socket.open axios", "socket.open axios.post"},
    "import https from 'https'; https.get(x)": {"import https", "socket.open https.get"},
    # text becomes code
    "eval(x)": {"eval.string eval"},
    "(0, eval)(x)": {"eval.string eval"},
    "const e = eval; e(x)": {"eval.string eval"},
    "globalThis['ev' + 'al'](x)": {"eval.string eval"},
    "globalThis[name](x)": {"call.dynamic globalThis"},
    "new Function(x)()": {"eval.string Function"},
    "require('vm').runInThisContext(x)": {"import vm", "eval.string vm.runInThisContext"},
    "setTimeout('x', 1)": {"eval.string setTimeout"},
    "setTimeout(() => x, 1)": set(),
    "setTimeout(x, 1)": set(),
    "[].constructor.constructor(x)()": {"call.dynamic constructor"},
    "eval(atob(x))": {"eval.string eval", "eval.decoded atob"},
    "const d = Buffer.from(x, 'base64').toString(); eval(d)": {"eval.string eval", "eval.decoded Buffer.from"},
    "eval(Buffer.from(x).toString())": {"eval.string eval"},
    "new Function(String.fromCharCode(97))": {"eval.string Function", "eval.decoded String.fromCharCode"},
    "const t = await (await fetch(u)).text(); eval(t)": {
        "socket.open fetch", "eval.string eval", "eval.downloaded fetch",
    },
    "require('v8').deserialize(x)": {"import v8", "eval.object v8.deserialize"},
    # the rest
    "process.binding('spawn_sync')": {"call.native process.binding"},
    "read(home + '/.ssh/id_rsa')": {"credential.path .ssh", "credential.path id_rsa"},
    "read(`${home}/.aws/credentials`)": {"credential.path .aws/"},
    "read('/etc/' + 'shadow')": {"credential.path /etc/shadow"},
    "require('path').join(home, '.aws', 'credentials')": {"import path", "credential.path .aws/"},
    "open(`${home}/.ssh/${key}`)": {"credential.path .ssh"},
    # written otherwise
    "\\u0065val(x)": {"eval.string eval"},
    "e\\u{76}al(x)": {"eval.string eval"},
    "import('child_process').then(c => c.exec(x))": EXEC,
    "import('child_process').then(({exec}) => exec(x))": EXEC,
    "const c = a ? require('child_process') : null; c.exec(x)": EXEC,
    "const c = a || require('child_process'); c.exec(x)": EXEC,
    "for (const c of [require('child_process')]) c.exec(x)": EXEC,
    "let c, d; c = d = require('child_process'); c.exec(x)": EXEC,
    "const {exec = 1} = require('child_process'); exec(x)": EXEC,
    "const {exec: e = 1} = require('child_process'); e(x)": EXEC,
    "const {['exec']: e} = require('child_process'); e(x)": EXEC,
    "const {a, ...rest} = require('child_process'); rest.exec(x)": EXEC,
    "require('module')._load('child_process').exec(x)": {*EXEC, "import module", "import.dynamic module._load"},
    "(() => 1).constructor('return 1')()": {"call.dynamic constructor"},
    "[]['filter']['constructor']('return 1')()": {"call.dynamic constructor"},
    # what is ordinary
    "const got = 1, ws = {}; got; ws.send(x); axios": set(),
    "function fetch() {} fetch(x)": set(),
    "import {fetch} from './mine.js'; fetch(x)": {"import ./mine.js"},
    "const eval2 = () => 1; class A { again() { return new this.constructor('a') } }": set(),
    "console.log(1 + 1); const {a} = b; class C { eval() {} }": set(),
    "": set(),
    "// eval(x)": set(),
    # what cannot be read
    "f(": {"analysis.failed syntax"},
    "eval(x); f(": {"eval.string eval", "analysis.failed syntax"},
}  # fmt: skip


def read(source: str) -> Report:
    report = Report()
    javascript.read(source.encode(), report)
    return report


def found(source: str) -> set[str]:
    return {f"{code} {detail}" for code, detail in read(source).found}


@pytest.mark.parametrize("source", FOUND)
def test_all_that_is_found(source: str) -> None:
    assert found(source) == FOUND[source]


def test_a_finding_has_the_line_of_its_first_place() -> None:
    lines = {detail: line for (_, detail), line in read("\neval(x)\n\nfetch(y); eval(z)").found.items()}
    assert lines == {"eval": 2, "fetch": 4}


def test_whether_all_was_understood_is_told() -> None:
    assert javascript.read(b"a", Report())
    assert not javascript.read(b"a(", Report())


@pytest.mark.parametrize(
    ("source", "embedded"),
    [
        ("eval('1')", Code("javascript", "1")),
        ("eval(`1`)", Code("javascript", "1")),
        (r"eval('\x31')", Code("javascript", "1")),
        ("const c = '1'; eval(c)", Code("javascript", "1")),
        ("setTimeout('1')", Code("javascript", "1")),
        ("require('child_process').execSync('curl x | sh')", Code("shell", "curl x | sh")),
        ("require('child_process').spawn('bash', ['-c', 'ls'])", Code("shell", "ls")),
        ("require('child_process').spawn('ls')", None),
        ("require('child_process').exec(x)", None),
        ("require('child_process').spawn('ls | sh', {shell: true})", Code("shell", "ls | sh")),
        ("require('child_process').spawn('ls | sh', {shell: false})", None),
        ("const a = ['-c', 'ls']; require('child_process').spawn('bash', a)", Code("shell", "ls")),
        ("require('child_process').exec(`curl ${x} | sh`)", Code("shell", "curl ${_} | sh", partial=True)),
        ("require('child_process').exec('curl ' + x + ' | sh')", Code("shell", "curl ${_} | sh", partial=True)),
        ("require('child_process').spawn('sh', ['-c', 'a ' + x])", Code("shell", "a ${_}", partial=True)),
        ("eval(x)", None),
    ],
)
def test_source_in_the_source_is_handed_on(source: str, embedded: Code | None) -> None:
    assert [code for code, _ in read(source).embedded] == ([] if embedded is None else [embedded])


def test_noise_does_not_hide_it() -> None:
    noise = "let o; " + "".join(f"o = x.a{number}; " for number in range(50))
    assert "process.start child_process.exec" in found(f"{noise}o = require('child_process'); o.exec(x)")


def test_text_that_doubles_itself_stays_small() -> None:
    doubling = "".join(f"const a{number + 1} = a{number} + a{number};" for number in range(60))
    assert found(f"const a0 = 'x'; {doubling} eval(a60)") == {"eval.string eval"}
