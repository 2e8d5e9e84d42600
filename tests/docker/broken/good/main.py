#!/usr/bin/env python3
"""Becomes the program that the first argument names: train.py, serve.py or process.py."""

import os
import sys

here = os.path.dirname(os.path.abspath(__file__))
name = sys.argv[1] if len(sys.argv) > 1 else ""
program = os.path.join(here, f"{name}.py")
if name not in ("train", "serve", "process"):
    sys.exit(f"usage: {sys.argv[0]} train|serve|process")
os.execv(sys.executable, [sys.executable, program, *sys.argv[2:]])
