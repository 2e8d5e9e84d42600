"""A parent that starts one worker and never looks after it."""

import os
import signal
import sys

import serve


def begin():
    worker = os.fork()
    if not worker:
        return

    def stop(number, frame):
        try:
            os.kill(worker, number)
        except ProcessLookupError:
            sys.exit(1)
        sys.exit(os.waitstatus_to_exitcode(os.waitpid(worker, 0)[1]))

    signal.signal(signal.SIGTERM, stop)
    while True:
        signal.pause()


serve.begin = begin
