ARG GOOD
FROM ${GOOD}
RUN cp main.py train && cp main.py serve && chmod 0644 serve
ENV PATH=/opt/program:$PATH
ENTRYPOINT []
