ARG GOOD
FROM ${GOOD}
RUN printf '#!/bin/sh\nset -e\r\nexec /opt/program/main.py "$@"\r\n' > start.sh
ENTRYPOINT ["sh", "start.sh"]
