ARG GOOD
FROM ${GOOD}
LABEL com.amazonaws.sagemaker.capabilities.multi-models=yes
