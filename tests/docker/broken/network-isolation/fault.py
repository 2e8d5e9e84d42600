"""Training asks the network for something at its start."""

import socket

import train

listen = train.listen


def ask():
    listen()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
        asking.connect(("192.0.2.1", 53))  # needs a route and sends nothing


train.listen = ask
