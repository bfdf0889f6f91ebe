"""Tables of sources and all that is found in them."""

import pytest

from sandboxd.analysis import python
from sandboxd.analysis.commandline import Code
from sandboxd.analysis.report import Report

FOUND: dict[str, set[str]] = {
    # imports
    "import os": {"import os"},
    "import os.path as p, sys, b.c.d": {"import os.path", "import sys", "import b.c.d"},
    "from . import z\nfrom ..q import r": {"import .", "import ..q"},
    "def f():\n    import socket": {"import socket"},
    "__import__(name)": {"import.dynamic __import__"},
    "__import__('socket')": {"import socket", "import.dynamic __import__"},
    "import importlib as i\ni.import_module(name)": {"import importlib", "import.dynamic importlib.import_module"},
    # processes, under any name
    "import os as o\no.system(x)": {"import os", "process.start os.system"},
    "from subprocess import Popen as P\nP(x)": {"import subprocess", "process.start subprocess.Popen"},
    "from os import *\nsystem(x)": {"import os", "process.start os.system"},
    "__import__('os').system(x)": {"import os", "import.dynamic __import__", "process.start os.system"},
    "import os\nrun = os.system\nrun(x)": {"import os", "process.start os.system"},
    "import os\na = os\nb = a\nb.popen(x)": {"import os", "process.start os.popen"},
    "import os, sys\na, b = os, sys\na.execv(x, y)": {"import os", "import sys", "process.start os.execv"},
    "import os\nmap(os.system, lines)": {"import os", "process.start os.system"},
    "import sys\nsys.modules['os'].popen(x)": {"import sys", "process.start os.popen"},
    "import os\nos.__dict__['system'](x)": {"import os", "process.start os.system"},
    "import os\nvars(os)['fork']()": {"import os", "process.start os.fork"},
    "import pty\npty.spawn('/bin/sh')": {"import pty", "process.start pty.spawn"},
    "import asyncio\nasync def f():\n    await asyncio.create_subprocess_exec(x)": {
        "import asyncio", "process.start asyncio.create_subprocess_exec",
    },
    "(o := __import__('os')).fork()": {"import os", "import.dynamic __import__", "process.start os.fork"},
    "import os\nrun = os.system if posix else os.popen\nrun(x)": {
        "import os", "process.start os.system", "process.start os.popen",
    },
    "for o in [__import__('os')]:\n    o.fork()": {"import os", "import.dynamic __import__", "process.start os.fork"},
    "[o.fork() for o in (__import__('os'),)]": {"import os", "import.dynamic __import__", "process.start os.fork"},
    "import sys\nsys.modules.get('os').popen(x)": {"import sys", "process.start os.popen"},
    "import os\nos.__getattribute__('fork')()": {"import os", "process.start os.fork"},
    # names that are put together when it runs
    "import os\ngetattr(os, 'sys' + 'tem')(x)": {"import os", "call.dynamic getattr", "process.start os.system"},
    "import os\ngetattr(os, ''.join(['sys', 'tem']))(x)": {
        "import os", "call.dynamic getattr", "process.start os.system",
    },
    "import os\ngetattr(os, 'metsys'[::-1])(x)": {"import os", "call.dynamic getattr", "process.start os.system"},
    "import os\na = 'sys'\ngetattr(os, f'{a}tem')(x)": {"import os", "call.dynamic getattr", "process.start os.system"},
    "import os\ngetattr(os, name)(x)": {"import os", "call.dynamic getattr"},
    "import os\ngetattr(os, 'getcwd')()": {"import os"},
    "globals()[name]()": {"call.dynamic globals()"},
    "import os\nvars(os)[name]()": {"import os", "call.dynamic __dict__"},
    "().__class__.__bases__[0].__subclasses__()": {"call.dynamic __bases__", "call.dynamic __subclasses__"},
    # sockets
    "import socket\ns = socket.socket()\ns.connect(x)": {"import socket", "socket.open socket.socket"},
    "from urllib.request import urlopen as u\nu(x)": {"import urllib.request", "socket.open urllib.request.urlopen"},
    "import requests\nrequests.post(x, data=y)": {"import requests", "socket.open requests.post"},
    # text becomes code
    "eval(x)": {"eval.string eval"},
    "e = eval\ne(x)": {"eval.string eval"},
    "import builtins\nbuiltins.exec(x)": {"import builtins", "eval.string exec"},
    "from builtins import exec as e\ne(x)": {"import builtins", "eval.string exec"},
    "globals()['__builtins__']['ev' + 'al'](x)": {"eval.string eval"},
    "__builtins__.eval(x)": {"eval.string eval"},
    "import builtins\nbuiltins.__dict__['eval'](x)": {"import builtins", "eval.string eval"},
    "import builtins\nvars(builtins)['eval'](x)": {"import builtins", "eval.string eval"},
    "globals().get('__builtins__').eval(x)": {"eval.string eval"},
    "exec(''.join(chr(c) for c in x))": {"eval.string exec", "eval.decoded chr"},
    "exec(''.join(map(chr, x)))": {"eval.string exec", "eval.decoded chr"},
    "c = d\nd = e\ne = bytes.fromhex(x)\nexec(c)": {"eval.string exec", "eval.decoded bytes.fromhex"},
    "import pickle\npickle.loads(x)": {"import pickle", "eval.object pickle.loads"},
    "import base64\nexec(base64.b64decode(x))": {"import base64", "eval.string exec", "eval.decoded base64.b64decode"},
    "import base64 as b\nd = b.b64decode(x).decode()\nexec(compile(d, '', 'exec'))": {
        "import base64", "eval.string exec", "eval.string compile", "eval.decoded base64.b64decode",
    },
    "exec(bytes.fromhex(x))": {"eval.string exec", "eval.decoded bytes.fromhex"},
    "import base64, os\nos.system(base64.b64decode(x))": {
        "import base64", "import os", "process.start os.system", "eval.decoded base64.b64decode",
    },
    "import marshal, zlib\nexec(marshal.loads(zlib.decompress(x)))": {
        "import marshal", "import zlib", "eval.string exec", "eval.object marshal.loads", "eval.decoded marshal.loads",
        "eval.decoded zlib.decompress",
    },
    "import urllib.request as u\nd = u.urlopen(x).read()\nexec(d)": {
        "import urllib.request", "socket.open urllib.request.urlopen", "eval.string exec",
        "eval.downloaded urllib.request.urlopen",
    },
    # the rest
    "import ctypes\nctypes.CDLL('libc.so.6').system(x)": {"import ctypes", "call.native ctypes.CDLL"},
    "open('/home/a/.ssh/id_rsa')": {"credential.path .ssh", "credential.path id_rsa"},
    "open('/etc/' + 'shadow')": {"credential.path /etc/shadow"},
    "open(f'{home}/.aws/credentials')": {"credential.path .aws/"},
    "open(b'/proc/self/environ')": {"credential.path /proc/self/environ"},
    "import os\nopen(os.path.join(home, '.aws', 'credentials'))": {"import os", "credential.path .aws/"},
    "open(Path.home() / '.aws' / 'credentials')": {"credential.path .aws/"},
    "open(Path('/etc', 'shadow'))": {"credential.path /etc/shadow"},
    "open(Path.home().joinpath('.azure', x))": {"credential.path .azure/"},
    "open('%s/shadow' % '/etc')": {"credential.path /etc/shadow"},
    "open('{}/shadow'.format('/etc'))": {"credential.path /etc/shadow"},
    # what is ordinary
    "from re import compile\ncompile(x)": {"import re"},
    "def eval(model): ...\neval(x)": set(),
    "eval(x)\ndef eval(model): ...": {"eval.string eval"},
    "def eval(model): ...\ndel eval\neval(x)": {"eval.string eval"},
    "from tempfile import os\nos.system(x)": {"import tempfile", "process.start os.system"},
    "import re\nre.compile(x)\nprint(1 + 1)": {"import re"},
    "class A:\n    def system(self): ...\nA().system()": set(),
    "": set(),
    "\ufeffimport os": {"import os"},
    "# coding: utf-7\neval+ACg-x+ACk-": {"eval.string eval"},
    # what cannot be read
    "if (": {"analysis.failed syntax"},
    "print 1": {"analysis.failed syntax"},
    "# coding: klingon\nx": {"analysis.failed syntax"},
    "a\0b": {"analysis.failed syntax"},
}  # fmt: skip


def read(source: str) -> Report:
    report = Report()
    python.read(source.encode(), report)
    return report


def found(source: str) -> set[str]:
    return {f"{code} {detail}" for code, detail in read(source).found}


@pytest.mark.parametrize("source", FOUND)
def test_all_that_is_found(source: str) -> None:
    assert found(source) == FOUND[source]


def test_a_finding_has_the_line_of_its_first_place() -> None:
    lines = {
        f"{code} {detail}": line for (code, detail), line in read("\nimport os\n\nos.fork()\nos.fork()").found.items()
    }
    assert lines == {"import os": 2, "process.start os.fork": 4}


def test_whether_all_was_understood_is_told() -> None:
    assert python.read(b"x", Report())
    assert not python.read(b"x(", Report())


@pytest.mark.parametrize(
    ("source", "embedded"),
    [
        ("eval('1 + 1')", Code("python", "1 + 1")),
        ("code = 'import x'\nexec(code)", Code("python", "import x")),
        ("import os\nos.system('curl x | sh')", Code("shell", "curl x | sh")),
        ("import subprocess as s\ns.run('ls', shell=True)", Code("shell", "ls")),
        ("import subprocess as s\ns.run(['bash', '-c', 'ls'])", Code("shell", "ls")),
        ("import subprocess as s\ns.run([x, '-c', 'ls'])", None),
        ("import subprocess as s\ns.run('ls')", None),
        ("import subprocess as s\ns.run('ls', shell=False)", None),
        ("import subprocess as s\ns.run(args=['bash', '-c', 'ls'])", Code("shell", "ls")),
        ("import subprocess as s\nc = ['bash', '-c', 'ls']\ns.run(c)", Code("shell", "ls")),
        ("import subprocess as s\ns.run(['bash'] + ['-c', 'ls'])", Code("shell", "ls")),
        ("import subprocess as s\ns.run('bash -c ls'.split())", Code("shell", "ls")),
        ("import shlex, subprocess as s\ns.run(shlex.split('bash -c \"ls x\"'))", Code("shell", "ls x")),
        ("import subprocess as s\ns.run(['ls x'], shell=True)", Code("shell", "ls x")),
        ("import asyncio\nasyncio.create_subprocess_exec('bash', '-c', 'ls')", Code("shell", "ls")),
        ("import os\nos.execv('/usr/bin/node', ['x', '-e', '1'])", Code("javascript", "1")),
        ("import os\nos.execlp('bash', 'x', '-c', 'ls')", Code("shell", "ls")),
        ("import os\nos.spawnvp(os.P_WAIT, 'bash', ['x', '-c', 'ls'])", Code("shell", "ls")),
        ("import os\nos.posix_spawn('/bin/sh', ['x', '-c', 'ls'], {})", Code("shell", "ls")),
        ("import os\nos.execv('/usr/bin/node', ['-e', '1'])", None),
        ("import os\nos.system(x)", None),
        # of which some is not known
        ("import subprocess as s\ns.run(['bash', '-c', f'ls {x}'])", Code("shell", "ls ${_}", partial=True)),
        ("import os\nos.execlp('bash', 'x', '-c', 'ls ' + x)", Code("shell", "ls ${_}", partial=True)),
        ("import os\nos.system(f'curl {x} | sh')", Code("shell", "curl ${_} | sh", partial=True)),
        ("import os\nos.system('curl ' + x + ' | sh')", Code("shell", "curl ${_} | sh", partial=True)),
        ("import os\nos.system('curl %s | %s' % (x, 'sh'))", Code("shell", "curl ${_} | sh", partial=True)),
        ("import os\nos.system('curl {} | sh'.format(x))", Code("shell", "curl ${_} | sh", partial=True)),
        ("import os\nos.system('curl {0} | sh'.format(x))", Code("shell", "curl {0} | sh${_}", partial=True)),
    ],
)
def test_source_in_the_source_is_handed_on(source: str, embedded: Code | None) -> None:
    assert [code for code, _ in read(source).embedded] == ([] if embedded is None else [embedded])


@pytest.mark.parametrize(
    "source",
    [
        "from x import *\n" * 50 + "from os import *\nsystem(1)",
        "import os\n" + "".join(f"o = x.a{number}\n" for number in range(50)) + "o = os\no.system(1)",
        "import os\n" + "".join(f"import m{number}\n" for number in range(100)) + "os.system(1)",
    ],
)
def test_noise_does_not_hide_it(source: str) -> None:
    assert "process.start os.system" in found(source)


def test_text_that_doubles_itself_stays_small() -> None:
    doubling = "".join(f"a{number + 1} = a{number} + a{number}\n" for number in range(60))
    assert found(f"a0 = 'x'\n{doubling}exec(a60)") == {"eval.string exec"}


@pytest.mark.parametrize("source", ["-" * 100_000 + "1", "x" + ".a" * 30_000, "1" + " + 1" * 30_000])
def test_deep_source_is_told_as_such(source: str) -> None:
    assert found(source) == {"analysis.failed too_deep"}
