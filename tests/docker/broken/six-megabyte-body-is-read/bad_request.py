"""A limit of one megabyte, told as a fault of the request."""

import serve

decode = serve.decode


def short(content_type, body):
    if len(body) > 1_000_000:
        raise serve.Refused(400, "field larger than field limit")
    return decode(content_type, body)


serve.decode = short
