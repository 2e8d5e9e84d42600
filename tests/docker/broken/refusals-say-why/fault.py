"""A status alone."""

import serve

serve.refuse = lambda error: (error.status, b"", "text/plain")
