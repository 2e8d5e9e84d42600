"""Headers become a dictionary, which knows one case only."""

import serve

find_type = serve.find_type

serve.find_type = lambda headers: find_type(dict(headers.items()))
