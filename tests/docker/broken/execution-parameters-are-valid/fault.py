"""The API's spelling instead of the container's, and more than 100 MB at once."""

import json

import serve


def execution_parameters():
    answer = {"MaxConcurrentTransforms": 32, "BatchStrategy": "MultiRecord", "MaxPayloadInMB": 6}
    return 200, json.dumps(answer).encode(), serve.JSON


serve.execution_parameters = execution_parameters
