"""The first process is a shell, which does not pass SIGTERM on."""

import os
import sys

if "UNDER_A_SHELL" not in os.environ:
    os.environ["UNDER_A_SHELL"] = "1"
    os.execv("/bin/sh", ["sh", "-c", f"{sys.executable} /opt/program/train.py; exit $?"])
