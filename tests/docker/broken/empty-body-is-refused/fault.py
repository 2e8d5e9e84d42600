"""The largest of no predictions."""

import serve


def invoke(headers, body):
    content_type, accept = serve.find_type(headers), serve.choose_type(headers)
    predictions = serve.predict(serve.loaded, serve.decode(content_type, body))
    serve.largest = max(predictions)
    return 200, serve.encode(accept, predictions), accept


serve.invoke = invoke
