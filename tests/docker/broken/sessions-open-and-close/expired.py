"""A session ends before it begins."""

import serve

serve.opened = lambda session: f"{session}; Expires=2001-01-01T00:00:00Z"
