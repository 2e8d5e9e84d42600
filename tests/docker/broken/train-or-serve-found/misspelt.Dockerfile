ARG GOOD
FROM ${GOOD}
ENTRYPOINT ["pyhton3", "/opt/program/main.py"]
