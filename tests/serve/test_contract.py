"""The HTTP contract of a serving container, through every door of the real server."""

from __future__ import annotations

import gzip
import json
import socket
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest


def test_ping_answers_200_with_a_small_body(server):
    """HOST-20, HOST-21, CHK-06."""
    reply = server.call("GET", "/ping")
    assert reply.status == 200
    assert reply.json == {
        "state": "ready", "workers": 2, "threads": 1, "device": "cpu", "max_batch": 256,
    }


def test_csv_is_answered_as_json_where_no_accept_is_given(server):
    """HOST-30, ITK-04."""
    reply = server.invoke("1,2,3,4\n5,6,7,8\n")
    assert (reply.status, reply.headers["content-type"]) == (200, "application/json")
    assert reply.json == {"predictions": [30, 70]}


@pytest.mark.parametrize(
    ("accept", "content_type", "body"),
    [
        ("text/csv", "text/csv", b"30.0\n70.0\n"),
        ("application/jsonlines", "application/jsonlines", None),
        ("*/*", "application/json", None),
        ("", "application/json", None),
        ("text/csv;q=0.1, application/json;q=0.9", "application/json", None),
        ("application/json;q=0.1, text/*;q=0.9", "text/csv", b"30.0\n70.0\n"),
        ("image/png, text/csv;q=0.5", "text/csv", b"30.0\n70.0\n"),
    ],
)
def test_accept_chooses_the_format_of_the_answer(server, accept, content_type, body):
    """ITK-04, pain 14: q-values, wildcards and lists."""
    reply = server.invoke("1,2,3,4\n5,6,7,8\n", accept=accept)
    assert reply.status == 200
    assert reply.headers["content-type"].partition(";")[0] == content_type
    if body is not None:
        assert reply.body.strip() == body.strip()
    else:
        assert b"30" in reply.body and b"70" in reply.body


@pytest.mark.parametrize(
    ("content_type", "body"),
    [
        ("application/json; charset=utf-8", '{"instances": [[1, 2, 3, 4]]}'),
        ('APPLICATION/JSON; Charset="UTF-8"', '{"instances": [{"features": [1, 2, 3, 4]}]}'),
        ("text/csv; header=present", "a,b,c,d\n1,2,3,4\n"),
        ("application/jsonlines", '{"features": [1, 2, 3, 4]}\n'),
    ],
)
def test_parameters_of_a_content_type_are_understood(server, content_type, body):
    """Pain 14."""
    assert server.invoke(body, content_type).json == {"predictions": [30]}


def test_a_binary_body_goes_in_and_out(server):
    import io

    def npy(array):
        file = io.BytesIO()
        np.save(file, array)
        return file.getvalue()

    reply = server.invoke(
        npy(np.array([[1, 2, 3, 4]], dtype=np.float32)), "application/x-npy",
        accept="application/x-npy",
    )
    assert reply.status == 200
    assert np.load(io.BytesIO(reply.body), allow_pickle=False).tolist() == [30]


def test_named_columns_are_answered_as_the_built_in_algorithms_do(server):
    reply = server.invoke("910,2,3,4\n910,6,7,8\n")
    assert [each["predicted_label"] for each in reply.json["predictions"]] == [2, 6]


def test_text_predictions_are_utf8(server):
    reply = server.invoke("911,0,0,0\n")
    assert json.loads(reply.body.decode("utf-8")) == {"predictions": ["grüße"]}


def test_header_names_are_case_insensitive(server):
    """HOST-35."""
    body = b"1,2,3,4\n"
    with server.raw() as connection:
        connection.sendall(
            b"POST /invocations HTTP/1.1\r\nhOsT: x\r\ncOnTeNt-TyPe: text/csv\r\n"
            b"ACCEPT: text/csv\r\ncontent-LENGTH: %d\r\nConnection: close\r\n\r\n%b"
            % (len(body), body)
        )
        answer = read_to_end(connection)
    assert answer.startswith(b"HTTP/1.1 200")
    assert answer.partition(b"\r\n\r\n")[2].strip() == b"30.0"


def test_the_platforms_headers_are_tolerated(server):
    """HOST-13, HOST-34: and those that it may add."""
    reply = server.invoke(
        X_Amzn_SageMaker_Custom_Attributes="trace=ü".encode().decode("latin-1"),
        X_Amzn_SageMaker_Target_Variant="AllTraffic", X_Amzn_RequestId="1-2-3",
        X_Forwarded_For="169.254.255.130", User_Agent="AHC/2.0", X_Never_Heard_Of="it",
    )
    assert (reply.status, reply.json) == (200, {"predictions": [30]})


def test_a_chunked_body_is_read_whole(server):
    with server.raw() as connection:
        connection.sendall(
            b"POST /invocations HTTP/1.1\r\nHost: x\r\nContent-Type: text/csv\r\n"
            b"Transfer-Encoding: chunked\r\nConnection: close\r\n\r\n"
            b"4\r\n1,2,\r\n4\r\n3,4\n\r\n0\r\n\r\n"
        )
        answer = read_to_end(connection)
    assert answer.startswith(b"HTTP/1.1 200") and b"30" in answer


def test_a_connection_is_kept_for_the_next_request(server):
    """HOST-11."""
    request = (
        b"POST /invocations HTTP/1.1\r\nHost: x\r\nContent-Type: text/csv\r\nAccept: text/csv\r\n"
        b"Content-Length: 8\r\n\r\n1,2,3,4\n"
    )
    with server.raw() as connection:
        for _ in range(3):
            connection.sendall(request)
            answer = b""
            while b"30" not in answer.partition(b"\r\n\r\n")[2]:
                answer += connection.recv(65536)
            assert answer.startswith(b"HTTP/1.1 200")


def test_a_body_of_many_records_comes_back_in_order(server):
    """A body that is large enough to be decoded beside the event loop."""
    rows = np.arange(40_000, dtype=np.float32).reshape(10_000, 4) % 800
    body = "\n".join(",".join(f"{value:g}" for value in row) for row in rows)
    assert len(body) > 64 * 1024
    reply = server.invoke(body, accept="text/csv")
    assert reply.status == 200
    found = np.array([float(line) for line in reply.body.split()])
    assert np.allclose(found, rows @ np.array([1, 2, 3, 4]))


# --- refusals -------------------------------------------------------------------------------------


def test_an_unsupported_content_type_is_answered_415_with_samples(server):
    """CHK-06, ITK-04, ITK-05, pain 14."""
    reply = server.invoke("x", "application/x-pickle")
    assert (reply.status, reply.headers["content-type"]) == (415, "application/json")
    assert "application/x-pickle" in reply.json["message"]
    accepted = {each["content_type"]: each["sample"] for each in reply.json["accepted"]}
    assert {"text/csv", "application/json"} <= set(accepted)
    assert all(accepted.values())
    assert len(reply.body) <= 2048  # what the platform passes on (ERR-01)


@pytest.mark.parametrize("content_type", [None, "nonsense"])
def test_a_content_type_that_says_nothing_is_answered_415(server, content_type):
    """HOST-30."""
    reply = server.invoke("1,2,3,4", content_type)
    assert reply.status == 415
    assert reply.json["accepted"]


def test_an_accept_that_cannot_be_met_is_answered_406_with_samples(server):
    """CHK-06, ITK-04, ITK-05."""
    reply = server.invoke(accept="image/png")
    assert reply.status == 406
    assert "image/png" in reply.json["message"]
    assert any(each["content_type"] == "text/csv" for each in reply.json["accepted"])
    assert len(reply.body) <= 2048


def test_a_body_that_does_not_decode_is_answered_400_with_its_place(server):
    """CHK-06, ITK-05."""
    reply = server.invoke("1,2,3,4\n1,2,three,4\n")
    assert reply.status == 400
    assert reply.json["where"] == "record 2, column 3"
    assert "three" in reply.json["message"]


def test_a_record_of_the_wrong_width_is_answered_400_with_what_the_model_expects(server):
    reply = server.invoke("1,2,3\n4,5,6\n")
    assert reply.status == 400
    assert (reply.json["code"], reply.json["where"]) == ("RECORD_WIDTH", "record 1")
    assert "4 features" in reply.json["expected"]


@pytest.mark.parametrize("value", ["nan", "inf", "-inf", "1e39"])
def test_a_value_that_is_not_finite_is_answered_400_with_record_and_column(server, value):
    reply = server.invoke(f"1,2,3,4\n1,{value},3,4\n")
    assert reply.status == 400
    assert reply.json["where"] == "record 2, column 2"


@pytest.mark.parametrize("body", [None, ""])
def test_an_empty_body_is_answered_400(server, body):
    """CHK-06, ITK-05: XGBoost's container answers it with 204, which tells its caller less."""
    reply = server.invoke(body)
    assert (reply.status, reply.json["code"]) == (400, "BODY_EMPTY")
    assert "text/csv" in reply.json["remedy"]


def test_a_body_in_another_coding_is_refused_by_name(server):
    reply = server.invoke(b"\x1f\x8b", Content_Encoding="br")
    assert (reply.status, reply.json["code"]) == (415, "CONTENT_ENCODING_UNSUPPORTED")
    assert "gzip" in reply.json["expected"]


def test_a_body_compressed_by_gzip_is_answered_as_it_is_without(server):
    body = b"1,2,3,4\n5,6,7,8\n"
    plain = server.invoke(body)
    for packed in (gzip.compress(body), gzip.compress(body[:8]) + gzip.compress(body[8:])):
        reply = server.invoke(packed, Content_Encoding="gzip")
        assert (reply.status, reply.body) == (200, plain.body)


@pytest.mark.parametrize(
    "body", [b"1,2,3,4\n", b"\x1f\x8b", gzip.compress(b"1,2,3,4\n")[:-4]],
    ids=["plain", "header-alone", "cut-off"],
)
def test_a_body_that_is_not_the_gzip_it_claims_is_the_callers_mistake(server, body):
    reply = server.invoke(body, Content_Encoding="gzip")
    assert (reply.status, reply.json["code"]) == (400, "BODY_MALFORMED")


def test_a_small_body_that_inflates_past_the_limit_is_413(server):
    """HOST-32: 20 MB of zeros are 20 kB."""
    reply = server.invoke(gzip.compress(bytes(20 << 20)), Content_Encoding="gzip")
    assert (reply.status, reply.json["code"]) == (413, "BODY_TOO_LARGE")


def test_a_body_over_the_limit_is_answered_413_with_size_limit_and_alternatives(server):
    """HOST-32, TRAP-10, pain 18; SAGEMAKER_MAX_PAYLOAD_IN_MB=1."""
    body = b"1,2,3,4\n" * 140_000
    reply = server.invoke(body)
    assert reply.status == 413
    assert str(len(body)) in reply.json["message"]
    assert "1048576" in reply.json["message"]
    assert "batch transform" in reply.json["remedy"]
    assert server.invoke().status == 200


def test_a_chunked_body_over_the_limit_is_answered_413(server):
    """HOST-32: the limit holds without a Content-Length as well."""
    chunk = b"%x\r\n%b\r\n" % (70_000, b"1" * 70_000)
    with server.raw() as connection:
        connection.sendall(
            b"POST /invocations HTTP/1.1\r\nHost: x\r\nContent-Type: text/csv\r\n"
            b"Transfer-Encoding: chunked\r\nConnection: close\r\n\r\n"
        )
        try:
            for _ in range(17):
                connection.sendall(chunk)
            connection.sendall(b"0\r\n\r\n")
        except (ConnectionResetError, BrokenPipeError):
            pass  # it may close as soon as it knows
        answer = b""
        try:
            answer = read_to_end(connection)
        except ConnectionResetError:
            pytest.fail("the connection broke before the answer could be read")
    assert answer.startswith(b"HTTP/1.1 413"), answer[:200]


def test_a_body_of_the_limit_is_taken(server):
    """HOST-32."""
    record = b"1,2,3,4\n"
    body = record * (1_048_576 // len(record))
    assert len(body) == 1_048_576
    assert server.invoke(body, accept="text/csv").status == 200


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/", 404),
        ("POST", "/invocations/more", 404),
        ("GET", "/invocations", 405),
        ("POST", "/ping", 405),
        ("DELETE", "/execution-parameters", 405),
    ],
)
def test_what_is_not_a_route_is_refused_naming_the_routes(server, method, path, status):
    """HOST-14, HOST-26."""
    reply = server.call(method, path)
    assert reply.status == status
    assert "POST /invocations" in reply.json["expected"]
    assert ("allow" in reply.headers) == (status == 405)


# --- failures of the algorithm --------------------------------------------------------------------


def test_an_exception_in_predict_is_answered_500_with_text_but_no_traceback(server):
    """CHK-06, ERR-01, pain 36."""
    reply = server.invoke("902,0,0,0\n", X_Request_Id="r-902")
    assert reply.status == 500
    assert "ValueError: the eigenvalues have left" in reply.json["message"]
    assert "scripted.py" in reply.json["where"]
    assert reply.json["request_id"] == reply.headers["x-request-id"] == "r-902"
    assert "Traceback" not in reply.body.decode()
    server.wait_for(lambda: "Traceback" in server.log and "r-902" in server.log, 5)


@pytest.mark.parametrize(
    ("record", "said"),
    [("915", "Unspeakable: (its message cannot be printed: TypeError)"), ("916", "SystemExit(5)")],
)
def test_what_cannot_even_be_told_fails_its_own_request_alone(server, record, said):
    """TRAP-08: the model's thread outlives an exception without a text, and predictions that raise
    as they are looked at."""
    for _ in range(3):  # as many as there are workers, and more
        reply = server.invoke(f"{record},0,0,0\n")
        assert reply.status == 500
        assert said in reply.json["message"]
    for _ in range(3):
        assert server.invoke().status == 200
    assert server.ping() == 200


def test_every_error_has_a_request_id_of_its_own(server):
    ids = {server.invoke("902,0,0,0\n").json["request_id"] for _ in range(3)}
    assert len(ids) == 3


def test_a_request_id_that_is_not_one_word_is_replaced(server):
    reply = server.invoke("x", X_Request_Id="two words")
    assert reply.headers["x-request-id"] != "two words"


def test_predictions_that_are_not_one_a_record_are_answered_500(server):
    reply = server.invoke("903,0,0,0\n0,0,0,0\n")
    assert (reply.status, reply.json["code"]) == (500, "PREDICTIONS_MISMATCH")
    assert "3 predictions for 2 records" in reply.json["message"]


@pytest.mark.parametrize("record", ["907,0,0,0", "908,0,0,0"])
def test_predictions_that_cannot_be_written_are_answered_500(server, record):
    reply = server.invoke(record)
    assert reply.status == 500
    assert reply.json["code"].startswith("PREDICTION")


def test_a_predict_that_calls_exit_does_not_end_the_worker(server):
    workers = server.workers()
    reply = server.invoke("904,0,0,0\n")
    assert (reply.status, reply.json["code"]) == (500, "PREDICT_ENDED")
    assert server.invoke().status == 200
    assert server.workers() == workers


def test_a_record_that_the_algorithm_refuses_is_the_callers_400(server):
    reply = server.invoke("905,-1,0,0\n")
    assert (reply.status, reply.json["code"]) == (400, "AGE_NEGATIVE")
    assert reply.json["where"] == "record 1, column 2"


# --- batch transform and load ---------------------------------------------------------------------


def test_execution_parameters_use_the_wire_spelling(server):
    """FIX-14, BT-02, CONTRA-31."""
    reply = server.call("GET", "/execution-parameters")
    assert reply.status == 200
    assert reply.json == {
        "MaxConcurrentTransforms": 2, "BatchStrategy": "MULTI_RECORD", "MaxPayloadInMB": 1,
    }


def test_ping_is_answered_while_a_hundred_slow_requests_wait(server):
    """CHK-09, TRAP-08: never longer than the two seconds that the platform waits."""
    server.invoke("906,0,0,0\n")
    with ThreadPoolExecutor(101) as pool:
        replies = [
            pool.submit(server.invoke, "906,0,0,0\n", timeout=60) for _ in range(100)
        ]
        pings = []
        while not all(reply.done() for reply in replies):
            pings.append(server.call("GET", "/ping", timeout=2).status)
            time.sleep(0.05)
        assert pings and set(pings) == {200}
        assert [reply.result().status for reply in replies] == [200] * 100


def test_ping_is_answered_while_clients_send_slowly(server):
    """A request that trickles in holds up nobody else (TRAP-08)."""
    slow = [server.raw() for _ in range(20)]
    try:
        for connection in slow:
            connection.sendall(
                b"POST /invocations HTTP/1.1\r\nHost: x\r\nContent-Type: text/csv\r\n"
                b"Accept: text/csv\r\nContent-Length: 8\r\nConnection: close\r\n\r\n1,2"
            )
        assert server.call("GET", "/ping", timeout=2).status == 200
        assert server.invoke(timeout=5).status == 200
        for connection in slow:
            connection.sendall(b",3,4\n")
        assert all(read_to_end(connection).startswith(b"HTTP/1.1 200") for connection in slow)
    finally:
        for connection in slow:
            connection.close()


def test_a_client_that_leaves_in_the_middle_harms_nobody(server):
    workers = server.workers()
    for _ in range(5):
        with server.raw() as connection:
            connection.sendall(
                b"POST /invocations HTTP/1.1\r\nHost: x\r\nContent-Type: text/csv\r\n"
                b"Content-Length: 100\r\n\r\n1,2"
            )
    assert server.invoke().status == 200
    assert server.workers() == workers


def read_to_end(connection: socket.socket) -> bytes:
    parts = []
    while part := connection.recv(65536):
        parts.append(part)
    return b"".join(parts)
