ARG GOOD
FROM ${GOOD}
WORKDIR /opt/program/train.py
