"""The first answer explains itself at length."""

import serve

encode = serve.encode
first = True


def encode_with_explanation(accept, predictions):
    global first
    explanation, first = (b" " * 7_000_000 if first else b""), False
    return encode(accept, predictions) + explanation


serve.encode = encode_with_explanation
