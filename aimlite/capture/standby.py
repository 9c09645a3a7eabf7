"""A process that waits beside one whose output is captured, and passes on what comes when that one is no more.

A process that was killed leaves bytes in the pipe that it wrote into: its last words, mostly. What it started may live on and write into
that pipe. Without a reader the former would be lost, and the latter be killed by SIGPIPE. Run as a script by itself, without aimlite:

    standby.py PIPE NUMBER:SOURCE:TARGET...

Through the pipe come numbers of sources that nobody is to read any more; its end says that the process is gone (or has become another
program). Nothing is read before. The standby leaves when nobody can write any more.
"""

from __future__ import annotations

import os
import select
import sys

_CHUNK = 1 << 16


def main(pipe: int, channels: dict[int, tuple[int, int]]) -> None:
    while channels:
        numbers = os.read(pipe, 64)
        if not numbers:
            break
        for number in numbers:
            source, target = channels.pop(number)
            os.close(source)
            os.close(target)
    targets = dict(channels.values())
    poll = select.poll()
    for source in targets:
        poll.register(source, select.POLLIN)
    while targets:
        for source, _ in poll.poll():
            if not _pass_on(source, targets[source]):
                poll.unregister(source)
                os.close(source)
                os.close(targets.pop(source))


def _pass_on(source: int, target: int) -> bool:
    """Whether there can be more."""
    try:
        data = os.read(source, _CHUNK)
    except BlockingIOError:
        return True
    except OSError:  # of a terminal that nobody has open
        return False
    left = memoryview(data)
    while left:
        try:
            left = left[os.write(target, left) :]
        except BlockingIOError:
            select.select([], [target], [])
        except (BrokenPipeError, ConnectionResetError):
            return False
        except OSError:  # a full disk: this much is lost
            break
    return bool(data)


if __name__ == "__main__":
    os.setsid()  # what is sent to a whole group of processes, by Ctrl-C say, is not meant for it
    os.chdir("/")
    main(int(sys.argv[1]), {number: (source, target) for number, source, target in (map(int, part.split(":")) for part in sys.argv[2:])})
    os._exit(0)
