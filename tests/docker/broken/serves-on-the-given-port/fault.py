"""The variable of pipelines is not read."""

import serve

serve.port = lambda: 8080
