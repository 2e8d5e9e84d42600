"""The program hands over to one that is not in the image."""

import os

os.execv("/bin/sh", ["sh", "-c", "exec pyhton /opt/program/train.py"])
