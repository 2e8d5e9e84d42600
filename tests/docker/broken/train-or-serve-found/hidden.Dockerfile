# The programs are on PATH, below what the service mounts over
ARG GOOD
FROM ${GOOD}
ENV PATH=/opt/ml/code:${PATH}
WORKDIR /opt/ml/code
RUN cp /opt/program/*.py . \
    && printf '#!/bin/sh\nexec /opt/ml/code/main.py train\n' > train \
    && printf '#!/bin/sh\nexec /opt/ml/code/main.py serve\n' > serve && chmod 0755 train serve
ENTRYPOINT []
