"""The standard streams of a command that was started without some of them, as by ``>&-`` or by a service manager."""

from __future__ import annotations

import errno
import os
import sys

STREAMS = (("stdin", "r"), ("stdout", "w"), ("stderr", "w"))  # of the descriptors 0, 1 and 2


def open_closed_streams() -> None:
    """Connects closed standard streams to the null device; is called before any file is opened.

    A file that is opened while a standard descriptor is closed has that descriptor: the output of a library would be written into
    it. Python's own streams are None then.
    """
    for descriptor, (name, mode) in enumerate(STREAMS):
        if _is_closed(descriptor):
            opened = os.open(os.devnull, os.O_RDWR)
            if opened == descriptor:
                os.set_inheritable(descriptor, True)
            else:
                os.dup2(opened, descriptor)
                os.close(opened)
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8", errors="replace"))  # noqa: SIM115 - until the process ends


def _is_closed(descriptor: int) -> bool:
    try:
        os.fstat(descriptor)
    except OSError as error:
        return error.errno == errno.EBADF
    return False
