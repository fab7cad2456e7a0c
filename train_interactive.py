"""The command ``paretorch interactive`` as a script, with the same options."""

import sys

from paretorch.cli import app

app(["interactive", *sys.argv[1:]])
