"""Data files that an installed Python package includes; the package itself is not imported."""

from __future__ import annotations

from importlib import metadata
from importlib.util import find_spec
from pathlib import Path

from paretorch.extras import extra


def package_file(package: str, inner: str, group: str) -> Path:
    """The path of a file in the folder of an installed package.

    Args:
        package: its name for ``import``, which is also that of its distribution.
        inner: the path of the file in the package's folder.
        group: the extra of paretorch that installs the package.

    Raises:
        ModuleNotFoundError: the package is not installed; the message contains the command that installs it.
        FileNotFoundError: the package has no such file; the message contains its version.

    Example:
        >>> package_file("torch", "version.py", "data").name
        'version.py'
        >>> package_file("a_package_that_is_not_there", "digits.csv", "data")
        Traceback (most recent call last):
        ...
        ModuleNotFoundError: a_package_that_is_not_there is not installed: pip install 'paretorch[data]'
    """
    with extra(group):
        specification = find_spec(package)
        if specification is None:
            raise ModuleNotFoundError(f"No module named {package!r}", name=package)
    paths = [Path(folder) / inner for folder in specification.submodule_search_locations or ()]
    for path in paths:
        if path.is_file():
            return path
    raise FileNotFoundError(
        f"{package} {package_version(package)} has no file {inner} (searched: {', '.join(map(str, paths)) or 'no folder'}): "
        f"install a version that has it, pip install --upgrade 'paretorch[{group}]'"
    )


def package_version(package: str) -> str:
    """The version of an installed package; ``"of unknown version"`` without metadata."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "of unknown version"
