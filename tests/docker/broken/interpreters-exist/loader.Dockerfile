ARG GOOD
FROM ${GOOD}
RUN sed 's|/lib64/ld-linux-x86-64|/lib64/ld-musl.x86-64|' /usr/bin/true > start && chmod 0755 start
ENTRYPOINT ["/opt/program/start"]
