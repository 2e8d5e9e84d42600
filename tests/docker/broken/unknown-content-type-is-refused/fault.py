"""Every body is taken for CSV."""

import serve

serve.find_type = lambda headers: serve.CSV
