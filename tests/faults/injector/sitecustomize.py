"""Ends the process with SIGKILL at one exact moment: the n-th audit event that matches.

`KILL_AT="os.rename|.tmp|1"`: event, part of the event's arguments, which one. It writes the file
`KILL_FIRED` first, so that a test can prove that it fired. On the path of faults' tests alone.
"""

import os
import signal
import sys

_event, _part, _count = os.environ["KILL_AT"].rsplit("|", 2)
_fired = os.environ["KILL_FIRED"]
_left = [int(_count)]


def _watch(event: str, args: tuple[object, ...]) -> None:
    if event != _event or _left[0] <= 0 or _part not in " ".join(map(str, args)):
        return
    _left[0] -= 1
    if _left[0] == 0:
        os.close(os.open(_fired, os.O_CREAT | os.O_WRONLY))
        os.kill(os.getpid(), signal.SIGKILL)


sys.addaudithook(_watch)
