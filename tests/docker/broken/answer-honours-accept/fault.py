"""Whatever is asked for, JSON comes."""

import serve

choose_type = serve.choose_type


def only_json(headers):
    choose_type(headers)
    return serve.JSON


serve.choose_type = only_json
