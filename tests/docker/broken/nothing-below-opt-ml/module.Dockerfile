# Data and folder of the author's own, and WORKDIR there
ARG GOOD
FROM ${GOOD}
WORKDIR /opt/ml/code
RUN echo "RATE = 0.1" > constants.py
