ARG GOOD
FROM ${GOOD}
RUN sed -i '1d' main.py
