ARG GOOD
FROM ${GOOD}
ENTRYPOINT ["python3", "program/main.py"]
