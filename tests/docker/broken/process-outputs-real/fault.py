"""The result is a link to a file elsewhere."""

import process

real = process.write


def write(directory, size):
    elsewhere = process.Path("/tmp")
    real(elsewhere, size)
    (directory / "report.json").symlink_to(elsewhere / "report.json")


process.write = write
