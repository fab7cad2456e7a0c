"""What the package never does: unpickle, execute text, call a shell, or open a socket in the ordinary commands."""

from __future__ import annotations

import ast
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from no_network import NetworkRefusedError
from package_imports import SOURCE
from training_runs import TINY

MODULES = {
    "pickle",
    "cPickle",
    "_pickle",
    "dill",
    "cloudpickle",
    "shelve",
    "marshal",
    "joblib",
    "yaml",
    "pty",
    "commands",
}
CALLS = {
    "eval", "exec", "compile", "__import__", "os.system", "os.popen", "os.startfile", "subprocess.getoutput",
    "subprocess.getstatusoutput", "torch.load", "torch.hub.load", "yaml.load", "np.load", "numpy.load", "pd.read_pickle",
    "pandas.read_pickle", "builtins.eval", "builtins.exec", "runpy.run_path", "asyncio.create_subprocess_shell",
}  # fmt: skip
FLAGS = {"shell", "allow_pickle"}  # arguments that are never True


def found_in(text: str) -> Iterator[str]:
    """Every use of a forbidden module, function or argument in a source text."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            module = node.module or ""
            names = [module, *(f"{module}.{alias.name}" for alias in node.names)]
        else:
            names = []
        yield from (name for name in names if name.split(".")[0] in MODULES or name in CALLS)
        if isinstance(node, ast.Attribute) and (name := ast.unparse(node)) in CALLS:
            yield name
        if isinstance(node, ast.Name) and node.id in CALLS:
            yield node.id
        if isinstance(node, ast.keyword) and node.arg in FLAGS and ast.unparse(node.value) != "False":
            yield f"{node.arg}={ast.unparse(node.value)}"


def test_package_executes_no_text_and_unpickles_nothing() -> None:
    paths = list((SOURCE / "paretorch").rglob("*.py"))
    assert len(paths) > 100
    uses = {str(path.relative_to(SOURCE)): list(found_in(path.read_text(encoding="utf-8"))) for path in paths}
    assert {name: found for name, found in uses.items() if found} == {}


@pytest.mark.parametrize(
    "text",
    [
        "import pickle", "from pickle import loads", "import torch\ntorch.load('x')", "from torch import load", "eval('1')",
        "subprocess.run('ls', shell=True)", "np.load('x', allow_pickle=flag)", "import os\nos.system('ls')", "run = exec",
    ],
)  # fmt: skip
def test_forbidden_uses_are_detected(text: str) -> None:
    assert list(found_in(text))


HOOK = """
import sys

def refuse(event, arguments):
    if event in ("socket.__new__", "socket.connect", "socket.bind", "socket.getaddrinfo", "urllib.Request"):
        raise RuntimeError(f"{event} {arguments}")

sys.addaudithook(refuse)
"""
OPENS = "import socket\nsocket.socket()\n"
LIBRARY = """
import torch, paretorch as pt
import paretorch.balance, paretorch.linesearch, paretorch.optim, paretorch.pareto, paretorch.training.loop, paretorch.studies
features = torch.randn(4, 3, requires_grad=True)
pt.Fork(pt.MGDA(), tasks=("a", "b"))
"""
COMMANDS = """
from typer.testing import CliRunner
from paretorch.cli import app
train = ["train", {workload!r}, "--epochs", "1", "--batch-size", "30", "--out", {out!r}]
for arguments in (["list", "methods"], train, *{more!r}):
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, (arguments, result.output, result.exception)
"""


def python(text: str, folder: Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join([str(SOURCE), *sys.path])}
    return subprocess.run(
        [sys.executable, "-c", HOOK + text], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize("reports", [False, pytest.param(True, marks=pytest.mark.long)])
def test_import_and_ordinary_commands_open_no_socket(tmp_path: Path, reports: bool) -> None:
    assert "socket.__new__" in python(OPENS, tmp_path).stderr, "the hook refuses a socket"
    out = str(tmp_path / "run")
    more = [["report", out]] if reports else []
    done = python(LIBRARY + COMMANDS.format(workload=TINY, out=out, more=more), tmp_path)
    assert done.returncode == 0, done.stderr + done.stdout
    assert (tmp_path / "run" / ("report.html" if reports else "result.json")).exists()


@pytest.mark.parametrize("address", ["192.0.2.1", "2001:db8::1", "10.0.0.1"])
def test_tests_cannot_connect_to_another_machine(address: str) -> None:
    with pytest.raises(NetworkRefusedError, match=address):
        socket.create_connection((address, 9), timeout=0.01)
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as opened, pytest.raises(NetworkRefusedError, match=address):
        opened.sendto(b"", (address, 9))


def test_tests_cannot_resolve_a_name_and_can_connect_within_this_machine() -> None:
    with pytest.raises(NetworkRefusedError, match=r"example\.org"):
        socket.getaddrinfo("example.org", 80)
    with socket.create_server(("localhost", 0)) as server, socket.create_connection(server.getsockname()[:2]) as opened:
        opened.sendall(b"here")
        with server.accept()[0] as accepted:
            assert accepted.recv(4) == b"here"
