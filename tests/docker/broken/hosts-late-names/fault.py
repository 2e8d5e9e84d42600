"""A host's name must resolve at once."""

import socket

import train

train.resolve = socket.gethostbyname
