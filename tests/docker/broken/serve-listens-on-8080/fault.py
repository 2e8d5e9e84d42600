"""Flask's usual port."""

import serve

serve.port = lambda: 5000
