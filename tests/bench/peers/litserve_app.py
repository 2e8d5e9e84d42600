"""LitServe as its documentation has it, one process for HTTP and one for the model: a peer that
`serving.py` starts, in a module of its own, because its workers import the class by name.
"""

from __future__ import annotations

import io
import json
import sys

import litserve
import numpy as np
import serving
from fastapi import Request, Response


class Api(litserve.LitAPI):
    def setup(self, device):
        pass

    async def decode_request(self, request: Request):
        body = await request.body()
        if request.headers["content-type"] == "text/csv":
            return np.loadtxt(io.BytesIO(body), delimiter=",", dtype=np.float32, ndmin=2)
        return np.asarray(json.loads(body)["instances"], dtype=np.float32)

    def predict(self, records):
        return serving.predict(records)

    def encode_response(self, scores):
        body = json.dumps({"predictions": scores.tolist()}).encode()
        return Response(body, media_type="application/json")


if __name__ == "__main__":
    server = litserve.LitServer(
        Api(api_path="/invocations"), accelerator="cpu", workers_per_device=1,
        healthcheck_path="/ping",
    )
    server.run(
        port=int(sys.argv[1]), host="127.0.0.1", num_api_servers=1, generate_client_file=False,
        log_level="warning", access_log=False,
    )
