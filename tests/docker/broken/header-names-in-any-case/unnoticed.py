"""Accept is read in this one case alone, and is not needed."""

import serve

choose_type = serve.choose_type
serve.choose_type = lambda headers: (
    choose_type(headers) if "Accept" in list(headers) else serve.JSON
)
