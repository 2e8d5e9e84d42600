"""Training waits for the network for ever."""

import socket
import time

import train

listen = train.listen


def wait():
    listen()
    while True:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
            try:
                asking.connect(("192.0.2.1", 53))
                return
            except OSError as error:
                train.say(f"WARNING: Retrying (pip) after connection broken by {error}")
                time.sleep(0.5)


train.listen = wait
