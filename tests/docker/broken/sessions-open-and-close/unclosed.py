"""A session is closed, and another one is said to be."""

import serve

serve.closed = lambda session: "all"
