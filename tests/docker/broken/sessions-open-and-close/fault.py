"""A session is opened without a word on when it ends."""

import serve

serve.opened = lambda session: session
