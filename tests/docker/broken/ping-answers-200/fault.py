"""The health check has a name of its own."""

import serve

serve.ROUTES["GET", "/health"] = serve.ROUTES.pop(("GET", "/ping"))
