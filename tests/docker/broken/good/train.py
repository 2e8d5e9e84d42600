"""A training program that keeps SageMaker's contract, of the standard library alone.

A broken image replaces one of its functions: its `fault.py` is imported before `main` runs.
"""

import json
import os
import signal
import socket
import sys
import time
import traceback
from pathlib import Path

ML = Path(os.environ.get("SAGEMAKER_BASE_DIR") or "/opt/ml")
EPOCH_SECONDS = 0.02
PEER_SECONDS = 900.0
PORT = 7777
MARKERS = (".sagemaker-ignore", ".sagemaker-uploading", ".sagemaker-uploaded")
stopping = False


def say(text):
    print(text, flush=True)


def read_config(name, default):
    path = ML / "input" / "config" / name
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else default


def decode(value):
    try:
        return json.loads(value)
    except ValueError:
        return value


def hyperparameters():
    raw = read_config("hyperparameters.json", {})
    return {"epochs": "10"} | {k: decode(v) for k, v in raw.items() if not k.startswith("_")}


def channels():
    return read_config("inputdataconfig.json", {})


def hosts():
    document = read_config("resourceconfig.json", {})
    own = document.get("current_host", "algo-1")
    return own, document.get("hosts") or [own]


def rank():
    own, names = hosts()
    return names.index(own)


def resolve(name):
    deadline = time.monotonic() + PEER_SECONDS
    while True:
        try:
            return socket.gethostbyname(name)
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.2)


def meet(names):
    """Every host waits until all of them are there."""
    if rank() == 0:
        with socket.create_server(("", PORT)) as server:
            server.settimeout(PEER_SECONDS)
            peers = [server.accept()[0] for _ in names[1:]]
        for peer in peers:
            peer.sendall(b"!")
            peer.close()
        return
    deadline = time.monotonic() + PEER_SECONDS
    while True:
        try:
            with socket.create_connection((resolve(names[0]), PORT), 5.0) as leader:
                leader.settimeout(PEER_SECONDS)
                leader.recv(1)
                return
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.2)


def read_channel(name, config, epoch):
    """The channel's bytes: those of its files, or of its FIFO for this epoch."""
    data = ML / "input" / "data"
    if config.get("TrainingInputMode") == "Pipe":
        fifo = data / f"{name}_{epoch}"
        while not fifo.exists():
            time.sleep(0.05)
        return fifo.read_bytes()
    directory = data / name
    files = sorted(p for p in directory.rglob("*") if p.is_file())
    if not files:
        raise FileNotFoundError(f"channel {name!r}: {directory} holds no files")
    return b"".join(path.read_bytes() for path in files)


def on_sigterm(number, frame):
    global stopping
    stopping = True


def listen():
    signal.signal(signal.SIGTERM, on_sigterm)


def checkpoints():
    document = read_config("checkpointconfig.json", None)
    return None if document is None else Path(document.get("LocalPath") or ML / "checkpoints")


def resume():
    """The epoch after the last checkpoint's; 0 where there is none."""
    directory = checkpoints()
    if directory is None or not directory.is_dir():
        return 0
    found = [p for p in directory.iterdir() if not p.name.endswith(MARKERS)]
    epochs = [json.loads(path.read_text())["epoch"] for path in found if path.suffix == ".json"]
    return max(epochs, default=-1) + 1


def save_checkpoint(epoch):
    directory = checkpoints()
    if directory is not None:
        directory.mkdir(parents=True, exist_ok=True)
        write(directory / f"checkpoint-{rank()}.json", json.dumps({"epoch": epoch}))


def write(path, text):
    part = path.with_name(f".{path.name}.sagemaker-ignore")
    part.write_text(text, encoding="utf-8")
    part.replace(path)


def save_model(model):
    if rank() == 0:
        write(ML / "model" / "model.json", json.dumps(model))


def report(error):
    text = f"{type(error).__name__}: {error}\n\n{traceback.format_exc()}"
    (ML / "output" / "failure").write_text(text[:1000], encoding="utf-8")


def progress(epoch, total):
    say(f"epoch={epoch} loss={1.0 / (epoch + 1):.6f}")


def train():
    listen()
    say("training begins")
    values = hyperparameters()
    total = int(values["epochs"])
    own, names = hosts()
    if len(names) > 1:
        for name in names:
            resolve(name)
        meet(names)
    size = 0
    for epoch in range(resume(), total):
        if stopping:
            say("stopping")
            break
        for name, config in channels().items():
            size = len(read_channel(name, config, epoch))
        time.sleep(EPOCH_SECONDS)
        progress(epoch, total)
        save_checkpoint(epoch)
    save_model({"size": size, "hyperparameters": values})


def main():
    try:
        train()
    except Exception as error:
        traceback.print_exc()
        report(error)
        return 1
    return 0


if __name__ == "__main__":
    sys.modules["train"] = sys.modules["__main__"]
    if Path(__file__).with_name("fault.py").exists():
        import fault  # noqa: F401 - it replaces functions of this module
    sys.exit(main())
