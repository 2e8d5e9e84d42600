"""Script-mode inference through a spawned server (ITK-01 … ITK-05)."""

from __future__ import annotations

import http.client
import textwrap

import numpy as np
import pytest

# One script for most of it: what a request asks for is in its body.
SCRIPT = '''
import json, os
from byoa.container.errors import DataError

class Falsy(Exception):
    def __len__(self):
        return 0

def model_fn(model_dir):
    return {"factor": float(open(os.path.join(model_dir, "factor.txt")).read())}

def input_fn(data, content_type):
    if content_type == "application/x-refused":
        error = ValueError(f"{content_type} is not read here")
        error.status_code = 415
        raise error
    if content_type == "application/x-raw":
        assert isinstance(data, bytes)
        return [float(len(data))]
    if content_type.startswith("application/json"):
        return json.loads(data)
    assert isinstance(data, str), type(data)
    return [float(part) for part in data.split(",")]

def predict_fn(data, model, context):
    if data == [13.0]:
        raise RuntimeError("no luck with 13")
    if data == [14.0]:
        raise SystemExit(3)
    if data == [15.0]:
        next(iter([]))
    if data == [16.0]:
        raise Falsy()
    context.set_response_header(0, "X-Amzn-SageMaker-Custom-Attributes",
                                context.get_request_header(0, "X-Amzn-SageMaker-Custom-Attributes"))
    return [value * model["factor"] for value in data]

def output_fn(prediction, accept):
    if accept == "text/csv":
        return ",".join(map(str, prediction)), "text/csv; charset=utf-8"
    return json.dumps({"prediction": prediction, "accept": accept})
'''


def lay(code=SCRIPT, name="code/inference.py", manifest=False, **files):
    """Makes a model directory: the script, and files of bytes or text by name."""
    def prepare(model):
        for path in model.iterdir():
            if not manifest:
                path.unlink()
        (model / "factor.txt").write_text("2")
        for path, content in {name: code, **files}.items():
            if content is not None:
                (model / path).parent.mkdir(parents=True, exist_ok=True)
                (model / path).write_text(textwrap.dedent(content))
    return prepare


def test_the_four_functions_answer(servers, door):
    """ITK-01, ITK-04: Accept absent or */* is the default; a context where it is taken."""
    server = servers(door, prepare=lay())
    answer = server.invoke("1,2\n", X_Amzn_SageMaker_Custom_Attributes="trace=7")
    assert answer.status == 200, answer.body
    assert answer.json == {"prediction": [2.0, 4.0], "accept": "application/json"}
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["x-amzn-sagemaker-custom-attributes"] == "trace=7"
    assert server.invoke("[3]", "application/json; charset=utf-8", "*/*",
                         X_Amzn_SageMaker_Custom_Attributes="1").json["prediction"] == [6.0]
    typed = server.invoke("1", accept="text/csv", X_Amzn_SageMaker_Custom_Attributes="1")
    assert (typed.body, typed.headers["content-type"]) == (b"2.0", "text/csv; charset=utf-8")
    raw = server.invoke(b"\xff\xfe", "application/x-raw", X_Amzn_SageMaker_Custom_Attributes="1")
    assert raw.json["prediction"] == [4.0]


def test_what_the_functions_raise_is_the_answer(servers, door):
    """ITK-04: 500 with the text and the line, or the status that the exception names."""
    server = servers(door, prepare=lay())
    failed = server.invoke("13")
    assert failed.status == 500
    assert failed.json["message"] == "RuntimeError: no luck with 13"
    assert "code/inference.py:" in failed.json["where"]
    assert "no luck with 13" in server.log
    refused = server.invoke("1", "application/x-refused")
    assert (refused.status, refused.json["message"]) == (
        415, "ValueError: application/x-refused is not read here"
    )
    for body in ("14", "15"):  # the end of a worker, and of a loop
        ended = server.invoke(body)
        assert (ended.status, ended.json["code"]) == (500, "PREDICT_ENDED")
    assert server.invoke("16").status == 500  # an exception that is false
    text = server.invoke(b"\xff", "text/csv")
    assert (text.status, text.json["code"]) == (400, "BODY_MALFORMED")
    assert server.ping() == 200


def test_transform_fn_stands_for_three(servers, door):
    """ITK-01"""
    server = servers(door, prepare=lay("""
        def model_fn(model_dir, context):
            return context.system_properties["model_dir"]

        def transform_fn(model, data, content_type, accept, context):
            context.set_response_status(201)
            context.set_response_content_type(0, "text/x-answer")
            return f"{model.rpartition('/')[2]} {data!r} {content_type} {accept}"
    """))
    answer = server.invoke(b"", None, "text/x-answer, */*;q=0.1")
    assert (answer.status, answer.headers["content-type"]) == (201, "text/x-answer")
    assert answer.body == b"model b'' application/octet-stream text/x-answer, */*;q=0.1"


def test_what_is_left_out_the_defaults_do(servers, door):
    """ITK-01, ITK-04: the formats of byoa, and no word around a prediction in JSON."""
    server = servers(door, prepare=lay("""
        import numpy as np

        class Model:
            def predict(self, records):
                return records * 2

        def model_fn(model_dir):
            return Model()
    """))
    assert server.invoke("1,2\n3,4\n").body == b"[[2.0,4.0],[6.0,8.0]]"
    assert server.invoke("[[1, 2]]", "application/json", "text/csv").body == b"2.0,4.0\n"
    unsupported = server.invoke("1", "application/x-unknown")
    assert (unsupported.status, unsupported.json["code"]) == (415, "MEDIA_TYPE_UNSUPPORTED")
    refused = server.invoke("1", accept="image/png")
    assert (refused.status, refused.json["code"]) == (406, "NOT_ACCEPTABLE")
    malformed = server.invoke("a,b")
    assert malformed.status == 400


def test_a_script_may_answer_with_a_byoa_model(servers):
    """byoa.json's algorithm is the default model_fn; SAGEMAKER_PROGRAM asks for the script."""
    script = """
        import numpy as np

        def output_fn(prediction, accept):
            return ";".join(f"{value:g}" for value in np.asarray(prediction)), "text/plain"
    """
    server = servers(prepare=lay(script, manifest=True), SAGEMAKER_PROGRAM="inference.py")
    assert server.invoke("1,2,3,4\n").body == b"30"
    assert server.invoke("1,2,3\n").status == 400  # as many columns as the model has
    other = servers(prepare=lay(script, manifest=True))
    assert other.invoke("1,2,3,4\n").json == {"predictions": [30.0]}
    assert "code/inference.py is not used" in other.log


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
def test_a_torch_script_file_needs_no_functions_but_one(servers):
    """ITK-01: pre_model_fn comes before the model is loaded."""
    import torch

    def prepare(model):
        lay("def pre_model_fn(model_dir):\n    print('before', model_dir)\n")(model)
        torch.jit.save(torch.jit.script(torch.nn.Linear(2, 1)), str(model / "model.pt"))

    server = servers(prepare=prepare)
    answer = server.invoke("1,2\n")
    assert answer.status == 200, answer.body
    assert np.asarray(answer.json).shape == (1, 1)
    assert f"before {server.base / 'ml' / 'model'}" in server.log


def test_what_yields_is_streamed(servers, door):
    """STRM-01: raw where a function writes it, else by the defaults."""
    server = servers(door, prepare=lay("""
        import json

        def model_fn(model_dir):
            return None

        def input_fn(data, content_type):
            return json.loads(data)

        def predict_fn(data, model):
            for word in data["prompt"].split():
                if word == "bad":
                    raise ValueError("a bad word")
                yield word
    """))
    events = server.invoke('{"prompt": "a b"}', "application/json", "text/event-stream")
    assert events.body == b"data: a\n\ndata: b\n\n"
    assert server.invoke('{"prompt": "a b"}', "application/json").body == b"ab"
    with pytest.raises((http.client.IncompleteRead, ConnectionError)):
        server.invoke('{"prompt": "a bad b"}', "application/json")
    assert server.invoke('{"prompt": "bad"}', "application/json").status == 500
    writes = servers(door, prepare=lay("""
        def model_fn(model_dir):
            return None

        def transform_fn(model, data, content_type, accept):
            def lines():
                for line in data.splitlines():
                    yield f"<{line}>"
            return lines(), "text/x-lines"
    """))
    answer = writes.invoke("1\n2\n")
    assert (answer.body, answer.headers["content-type"]) == (b"<1><2>", "text/x-lines")
    assert answer.headers["transfer-encoding"] == "chunked"


def test_a_generator_s_own_words_to_the_context_count(servers, door):
    """Its body runs only when the first piece is asked for."""
    server = servers(door, prepare=lay("""
        def model_fn(model_dir):
            return None

        def transform_fn(model, data, content_type, accept, context):
            context.set_response_status(206)
            context.set_response_content_type(0, "text/x-lines")
            context.set_response_header(0, "X-Lines", "2")
            yield "one"
            yield "two"
    """))
    answer = server.invoke("1\n")
    assert (answer.status, answer.body) == (206, b"onetwo")
    assert (answer.headers["content-type"], answer.headers["x-lines"]) == ("text/x-lines", "2")


def test_what_cannot_stand_in_a_head_is_the_script_s_error(servers, door):
    """No answer is split, and none is lost in the middle."""
    server = servers(door, prepare=lay("""
        def model_fn(model_dir):
            return None

        def transform_fn(model, data, content_type, accept, context):
            if data == "status":
                context.set_response_status(42)
            elif data == "type":
                return "x", "text/x\\r\\nSet-Cookie: a=b"
            elif data == "number":
                context.set_response_header(0, "X-Count", 3)
            else:
                context.set_response_header(0, "X-Echo", data)
            return "fine"
    """), BYOA_QUEUE_LIMIT="2")
    for body, code in (("a\r\nSet-Cookie: b=c", "CONTEXT_HEADER"), ("type", "CONTEXT_HEADER"),
                       ("number", "CONTEXT_HEADER"), ("status", "CONTEXT_STATUS"),
                       ("snow \u2603", "CONTEXT_HEADER")):
        failed = server.invoke(body.encode())
        assert (failed.status, failed.json["code"]) == (500, code)
        assert "set-cookie" not in failed.headers
    answer = server.invoke("gr\u00fc\u00dfe".encode())
    assert (answer.status, answer.body) == (200, b"fine")


def test_the_functions_are_always_called_on_one_thread(servers, door):
    """A database that model_fn opens, and asyncio, mind the thread."""
    server = servers(door, prepare=lay("""
        import asyncio, sqlite3, threading

        def model_fn(model_dir):
            return sqlite3.connect(":memory:")

        def input_fn(data, content_type):
            return threading.get_ident()

        def predict_fn(data, model):
            asyncio.run(asyncio.sleep(0))
            return [data, model.execute("select 1").fetchone()[0]]
    """))
    assert len({server.invoke("1").body for _ in range(60)}) == 1


def test_modules_beside_the_script_and_its_warm_up(servers):
    """ITK-01, ITK-02: code/ is on the path."""
    server = servers(prepare=lay(
        """
        from helper import doubled

        def model_fn(model_dir):
            return {"warm": False}

        def model_warmup_fn(model_dir, model):
            model["warm"] = True

        def predict_fn(data, model):
            return {"warm": model["warm"], "values": doubled(data)}
        """,
        **{"code/helper.py": "def doubled(data):\n    return data * 2\n"},
    ))
    assert server.invoke("1,2\n").json == {"warm": True, "values": [[2, 4]]}


@pytest.mark.parametrize("submit", ["directory", "tar"])
def test_the_code_may_be_elsewhere(servers, tmp_path, submit):
    """HOST-08: SAGEMAKER_PROGRAM and SAGEMAKER_SUBMIT_DIRECTORY."""
    import tarfile

    source = tmp_path / "source"
    source.mkdir()
    (source / "predictor.py").write_text(SCRIPT)
    where = source
    if submit == "tar":
        where = tmp_path / "sourcedir.tar.gz"
        with tarfile.open(where, "w:gz") as tar:
            tar.add(source / "predictor.py", "predictor.py")
    server = servers(
        prepare=lay(None), SAGEMAKER_PROGRAM="predictor.py", SAGEMAKER_SUBMIT_DIRECTORY=str(where),
    )
    answer = server.invoke("1,2", X_Amzn_SageMaker_Custom_Attributes="1")
    assert answer.json["prediction"] == [2.0, 4.0]


def test_requirements_are_installed_before_the_start(servers, tmp_path):
    """ITK-02: from a wheelhouse in the code, so that no network is needed."""
    wheel = tmp_path / "greeting-1.0-py3-none-any.whl"
    write_wheel(wheel)

    def prepare(model):
        lay("""
            import greeting

            def model_fn(model_dir):
                return None

            def predict_fn(data, model):
                return greeting.WORD
        """)(model)
        (model / "code" / "wheelhouse").mkdir()
        (model / "code" / "wheelhouse" / wheel.name).write_bytes(wheel.read_bytes())
        (model / "code" / "requirements.txt").write_text("greeting==1.0\n")

    server = servers(prepare=prepare, wait=False)
    server.ready(120)
    assert server.invoke("1\n").json == "good day"
    assert "requirements.txt installed" in server.log


def test_requirements_that_cannot_be_met_end_the_start(servers):
    def prepare(model):
        lay()(model)
        (model / "code" / "wheelhouse").mkdir()
        (model / "code" / "requirements.txt").write_text("not-there==1.0\n")

    server = servers(prepare=prepare, wait=False)
    assert server.process.wait(120) == 1
    assert "[REQUIREMENTS_FAILED]" in server.log


@pytest.mark.parametrize(("name", "variables", "code", "remedy"), [
    ("inference.py", {}, "INFERENCE_SCRIPT_MISPLACED",
     "mkdir -p code && mv inference.py code/inference.py"),
    ("src/Inference.py", {}, "INFERENCE_SCRIPT_MISPLACED",
     "mkdir -p code && mv src/Inference.py code/inference.py"),
    ("model/code/inference.py", {}, "INFERENCE_SCRIPT_MISPLACED",
     "tar -C model -czf model.tar.gz ."),
    ("code/serve.py", {}, "INFERENCE_SCRIPT_MISPLACED",
     "mv code/serve.py code/inference.py; or set SAGEMAKER_PROGRAM=serve.py"),
    ("predictor.py", {"SAGEMAKER_PROGRAM": "predictor.py"}, "INFERENCE_SCRIPT_MISSING",
     "mv predictor.py code/predictor.py"),
    ("code/inference.py", {"SAGEMAKER_PROGRAM": "predictor.py"}, "INFERENCE_SCRIPT_MISSING",
     "correct SAGEMAKER_PROGRAM"),
    ("code/inference.py", {"SAGEMAKER_PROGRAM": "inference.py", "BYOA_ALGORITHM": "a:B"},
     "ALGORITHM_AMBIGUOUS", "to serve by the script remove BYOA_ALGORITHM"),
])
def test_a_script_that_is_not_where_it_should_be_is_named(servers, name, variables, code, remedy):
    """HOST-42, ITK-02: with what the archive holds, and what to do."""
    reason = why(servers(prepare=lay(name=name), wait=False, **variables), code)
    assert remedy in reason["remedy"]
    if code == "INFERENCE_SCRIPT_MISPLACED":
        assert name in reason["message"]


@pytest.mark.parametrize(("script", "code", "words"), [
    ("x = 1\n", "HANDLERS_MISSING", "defines none of model_fn"),
    ("def transform_fn(m, d, c, a): ...\ndef input_fn(d, c): ...\n", "HANDLERS_AMBIGUOUS",
     "transform_fn is defined beside input_fn"),
    ("def model_fn(): ...\n", "HANDLER_INVALID", "model_fn() cannot be called so"),
    ("async def predict_fn(data, model): ...\n", "HANDLER_INVALID", "predict_fn is asynchronous"),
    ("def predict_fn(data, model): ...\n", "MODEL_FN_MISSING", "defines no model_fn, and"),
    ("import does_not_exist\n", "MODEL_LOAD_FAILED", "No module named 'does_not_exist'"),
])
def test_a_script_that_cannot_answer_is_explained(servers, script, code, words):
    assert words in why(servers(prepare=lay(script), wait=False), code)["message"]


def why(server, code):
    """What /ping says once it says that the model failed by `code`."""
    def failed():
        return server.ping() == 503 and server.call("GET", "/ping").json.get("code") == code

    server.wait_for(failed)
    return server.call("GET", "/ping").json


def write_wheel(path):
    import zipfile

    info = "greeting-1.0.dist-info"
    with zipfile.ZipFile(path, "w") as wheel:
        wheel.writestr("greeting.py", "WORD = 'good day'\n")
        wheel.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: greeting\nVersion: 1.0\n")
        wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: "
                       "true\nTag: py3-none-any\n")
        wheel.writestr(f"{info}/RECORD", "")
