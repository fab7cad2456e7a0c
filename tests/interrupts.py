"""Handling of SIGINT in processes that tests interrupt."""

from __future__ import annotations

import signal


def restore_interrupts() -> None:
    """Restores the default action of SIGINT; a ``preexec_fn`` of :class:`subprocess.Popen`.

    A shell starts background jobs with SIGINT ignored, and their children inherit that. Python installs its handler, which
    raises KeyboardInterrupt, only where SIGINT is not ignored when it starts.
    """
    signal.signal(signal.SIGINT, signal.SIG_DFL)
