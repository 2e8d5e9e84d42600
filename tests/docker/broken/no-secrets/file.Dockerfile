ARG GOOD
FROM ${GOOD}
RUN mkdir /root/.aws && echo "[default]" > /root/.aws/credentials
