"""The server looks for a network before it starts, and sends nothing."""

import socket

import serve


def begin():
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect(("198.51.100.1", 443))


serve.begin = begin
