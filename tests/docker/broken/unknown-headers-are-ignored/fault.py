"""A strict list of headers."""

import serve

invoke = serve.invoke
KNOWN = {"host", "connection", "content-type", "content-length", "accept", "transfer-encoding",
         "expect", "user-agent", serve.SESSION.lower()}


def invoke_strictly(headers, body):
    for name in headers:
        if name.lower() not in KNOWN:
            raise serve.Refused(400, f"what is the header {name}?")
    return invoke(headers, body)


serve.invoke = invoke_strictly
