"""``python -m paretorch``: the same as the command ``paretorch``."""

from paretorch.cli import main

main()
