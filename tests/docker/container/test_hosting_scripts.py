"""`docker run IMAGE serve` with an inference script, and with less memory than planned."""

from __future__ import annotations

import http.client
import zipfile

import pytest

SCRIPT = '''
import greeting, os

def model_fn(model_dir):
    return sorted(os.listdir(model_dir))

def input_fn(data, content_type):
    return data

def predict_fn(data, model):
    for word in data.split():
        yield f"{greeting.WORD} {word}"
'''
# A worker holds 200 MiB of ballast, and may be asked to take more than there is.
BALLAST = '''
BALLAST = bytearray(b"x") * (200 << 20)

def model_fn(model_dir):
    return None

def input_fn(data, content_type):
    return data

def predict_fn(data, model):
    return len(bytearray(b"x") * (900 << 20)) if data == "boom" else "fine"
'''


def lay(tree, script):
    code = tree.layout.model / "code"
    code.mkdir()
    (code / "inference.py").write_text(script)
    return code


def wheel(path):
    info = "greeting-1.0.dist-info"
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("greeting.py", "WORD = 'hello'\n")
        file.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: greeting\nVersion: 1.0\n")
        file.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nGenerator: test\n"
                      "Root-Is-Purelib: true\nTag: py3-none-any\n")
        file.writestr(f"{info}/RECORD", "")


def test_a_script_and_its_wheels_are_served_in_every_way(start, tree, torch_free_image, way):
    """ITK-01, ITK-02, STRM-01, HOST-40: the model is read-only, and no network is needed."""
    code = lay(tree, SCRIPT)
    (code / "requirements.txt").write_text("greeting\n")
    (code / "wheelhouse").mkdir()
    wheel(code / "wheelhouse" / "greeting-1.0-py3-none-any.whl")
    box = start(
        torch_free_image, "serve", tree=tree, way=way, read_only=("model",),
        environment={"SAGEMAKER_PROGRAM": "inference.py",
                     "SAGEMAKER_SUBMIT_DIRECTORY": "/opt/ml/model/code"},
    ).ready()
    answer = box.invoke(b"ada grace", accept="text/event-stream")
    assert answer.text == "data: hello ada\n\ndata: hello grace\n\n"
    assert answer.headers["transfer-encoding"] == "chunked"


def test_workers_are_as_many_as_memory_holds(start, tree, torch_free_image):
    """TRAP-24: the first is measured; one that is killed for memory is not started again."""
    lay(tree, BALLAST)
    box = start(
        torch_free_image, "serve", tree=tree, mem_limit="900m", memswap_limit="900m",
        environment={"BYOA_PIN_WORKERS": "0"},
    ).ready()
    if "2 workers" not in box.log:
        pytest.skip("a machine of one CPU has one worker")
    assert "2 of 2 are started in" in box.log
    with pytest.raises((http.client.HTTPException, OSError)):
        box.invoke(b"boom")
    box.until(lambda: "a worker was killed for memory: 1 from now on" in box.log)
    box.until(lambda: box.ping() == 200)
    assert box.invoke(b"1").text == '"fine"'
