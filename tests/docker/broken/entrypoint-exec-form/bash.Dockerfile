ARG GOOD
FROM ${GOOD}
ENTRYPOINT ["/bin/bash", "-c", "/opt/program/main.py train"]
