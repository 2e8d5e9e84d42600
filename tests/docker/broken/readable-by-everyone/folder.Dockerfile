ARG GOOD
FROM ${GOOD}
RUN chmod 0700 /opt/program
