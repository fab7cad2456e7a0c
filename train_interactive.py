"""The menu: the same as ``paretorch interactive``, with the same flags."""

import sys

from paretorch.cli import app

app(["interactive", *sys.argv[1:]])
