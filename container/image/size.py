"""What an image adds to its base, against its budget: `size.py DOCKER BASE_IMAGE IMAGE`.

Exits with 1, printing the ten largest directories, where it is over. Called by `make image-size`.
"""

from __future__ import annotations

import json
import subprocess
import sys

BUDGET_BYTES = {"none": 180_000_000, "cpu": 1_150_000_000}
ROOT = "/opt/byoa"
# Runs in the image: every directory below ROOT with the bytes of all that is in it.
MEASURE = f"""
import collections, json, os
sizes = collections.Counter()
for folder, _, files in os.walk({ROOT!r}):
    here = sum(os.lstat(os.path.join(folder, name)).st_size for name in files)
    while here and folder.startswith({ROOT!r}):
        sizes[folder] += here
        folder = os.path.dirname(folder)
torch = any(name.endswith("/site-packages/torch") for name in sizes)
print(json.dumps(["cpu" if torch else "none", sizes.most_common(2000)]))
"""


def size(docker: str, image: str) -> int:
    """Bytes of the image's layers, unpacked."""
    return int(subprocess.run(
        [docker, "image", "inspect", "--format", "{{.Size}}", image],
        check=True, timeout=60, stdout=subprocess.PIPE,
    ).stdout)


def measure(docker: str, image: str) -> tuple[str, list[tuple[str, int]]]:
    """The variant whose budget holds, and the ten largest directories that are not one's parent."""
    variant, sizes = json.loads(subprocess.run(
        [docker, "run", "--rm", "--entrypoint", "python", image, "-c", MEASURE],
        check=True, timeout=300, stdout=subprocess.PIPE,
    ).stdout)
    largest: list[tuple[str, int]] = []
    for name, amount in sizes:
        # One whose size is nearly all in a single directory below says nothing more than that one.
        below = max((a for n, a in sizes if n.startswith(f"{name}/")), default=0)
        if below < 0.9 * amount:
            largest.append((name, amount))
    return variant, largest[:10]


def report(docker: str, base: str, image: str) -> tuple[bool, str]:
    """Whether the image is within its budget, and the text that says so."""
    added = size(docker, image) - size(docker, base)
    variant, largest = measure(docker, image)
    budget = BUDGET_BYTES[variant]
    within = added <= budget
    lines = [f"{image} adds {added / 1e6:.0f} MB to {base}; its budget is {budget / 1e6:.0f} MB"]
    if not within:
        lines += [f"{amount / 1e6:8.1f} MB  {name}" for name, amount in largest]
    return within, "\n".join(lines)


def main(docker: str, base: str, image: str) -> None:
    within, text = report(docker, base, image)
    print(text)
    sys.exit(not within)


if __name__ == "__main__":
    main(*sys.argv[1:])
