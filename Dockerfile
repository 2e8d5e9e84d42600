# The image that SageMaker trains and hosts, and that a user's own image is built from.
#
#   docker build --tag byoa .                                  torch's CPU build
#   docker build --build-arg TORCH_VARIANT=none --tag byoa .   without torch
#   docker build --build-arg TORCH_VARIANT=cu126 --build-arg TORCH_INDEX=… --tag byoa .
#
# With wheels/ filled (`make wheels`) the build needs no network. Works with BuildKit and with the
# classic builder: so no mounts and no here-documents.

ARG BASE_IMAGE=python:3.11-slim-bookworm

# --- what is installed: changes only when a requirement does, whatever else pyproject.toml says ---
FROM ${BASE_IMAGE} AS requirements
WORKDIR /build
COPY pyproject.toml container/image/requirements.py ./
ARG EXTRAS=script,fast
RUN mkdir /requirements && python3 requirements.py "$EXTRAS" /requirements

# --- the virtual environment, and the tools that build; compilers stay here -----------------------
FROM ${BASE_IMAGE} AS builder
# pip's own settings reach the builder stages only; in the result nothing of them is left.
ARG PIP_INDEX_URL
ARG PIP_EXTRA_INDEX_URL
ARG PIP_TRUSTED_HOST
ARG PIP_CERT
ARG PIP_DEFAULT_TIMEOUT
WORKDIR /build
COPY constraints.txt container/image/install.py container/image/strip.py container/image/tools.txt ./
# The bracket makes a pattern of the name, which may match nothing: then the index is asked.
COPY constraints.txt wheel[s] wheels/
RUN python3 -m venv /opt/byoa && python3 -m venv /opt/tools \
 && python3 install.py /opt/tools/bin/python --requirement tools.txt \
 && python3 install.py /opt/byoa/bin/python --constraint constraints.txt --upgrade pip \
 && /opt/byoa/bin/python -m pip uninstall --quiet --yes setuptools

# --- everything but torch: the same layer in every variant ---------------------------------------
FROM builder AS dependencies
ARG PIP_INDEX_URL
ARG PIP_EXTRA_INDEX_URL
ARG PIP_TRUSTED_HOST
ARG PIP_CERT
ARG PIP_DEFAULT_TIMEOUT
COPY --from=requirements /requirements/dependencies.txt requirements/
RUN python3 install.py /opt/byoa/bin/python --no-compile --constraint constraints.txt \
      --requirement requirements/dependencies.txt \
 && /opt/byoa/bin/python strip.py /

# --- torch, as a tree of its own that is laid over the environment -------------------------------
FROM dependencies AS torch
ARG PIP_INDEX_URL
ARG PIP_EXTRA_INDEX_URL
ARG PIP_TRUSTED_HOST
ARG PIP_CERT
ARG PIP_DEFAULT_TIMEOUT
COPY --from=requirements /requirements/torch.txt requirements/
COPY container/image/install_torch.py ./
ARG TORCH_VARIANT=cpu
# The index of that build of torch, asked besides pip's own.
ARG TORCH_INDEX
RUN python3 install_torch.py "$TORCH_VARIANT" "$TORCH_INDEX"

# --- byoa itself: a small tree, the only one that a change of its code builds again ---------------
FROM dependencies AS project
WORKDIR /build/project
COPY LICENSE README.md pyproject.toml ./
COPY algorithms algorithms
COPY container container
COPY local local
COPY serve serve
RUN /opt/tools/bin/python -m pip wheel --quiet --no-index --no-deps --no-build-isolation \
      --wheel-dir /dist . \
 && /opt/byoa/bin/python -m pip install --quiet --no-index --no-deps --no-compile \
      --no-warn-script-location --root-user-action ignore --root /project /dist/*.whl \
 && /opt/byoa/bin/python ../strip.py /project \
 && mkdir /metadata && cp -r /project/opt/byoa/lib/python3*/site-packages/byoa-*.dist-info /metadata \
 && rm /metadata/*/RECORD

# --- the bill of materials, of the whole environment; it must be consistent -----------------------
FROM torch AS bill
COPY --from=project /metadata /metadata
RUN printf '%s\n' /torch/opt/byoa/lib/python3*/site-packages /metadata \
      > "$(echo /opt/byoa/lib/python3*/site-packages)/builder.pth" \
 && /opt/byoa/bin/python -m pip --disable-pip-version-check check \
 && mkdir -p /bill/opt/byoa \
 && /opt/tools/bin/cyclonedx-py environment --output-reproducible --output-format JSON \
      --output-file /bill/opt/byoa/sbom.cdx.json /opt/byoa/bin/python

# --- the result -----------------------------------------------------------------------------------
FROM ${BASE_IMAGE}
# The workers run as `byoa`; a base image may have given its number already.
RUN useradd --non-unique --uid 1000 --user-group --create-home byoa \
 && mkdir -p /opt/ml /opt/program
COPY --from=dependencies /opt/byoa /opt/byoa
COPY --from=torch /torch/opt/byoa /opt/byoa
COPY --from=bill /bill/opt/byoa /opt/byoa
# An author's image copies its files to /opt/program. The NVIDIA runtime reads its two variables
# where there is one; they mean nothing elsewhere.
ENV PATH=/opt/byoa/bin:$PATH \
    PYTHONPATH=/opt/program \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    NVIDIA_VISIBLE_DEVICES=all \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility
ARG BASE_IMAGE
LABEL com.amazonaws.sagemaker.capabilities.multi-models=true \
      com.amazonaws.sagemaker.capabilities.accept-bind-to-port=true \
      com.amazonaws.sagemaker.capabilities.bidirectional-streaming=true \
      org.opencontainers.image.title=byoa \
      org.opencontainers.image.description="A Python algorithm that SageMaker trains and hosts" \
      org.opencontainers.image.version=0.1.0 \
      org.opencontainers.image.licenses=Apache-2.0 \
      org.opencontainers.image.base.name=$BASE_IMAGE
WORKDIR /opt/program
EXPOSE 8080
# Only a server is asked; a job is healthy while it runs. A start may take the platform's 8 minutes.
HEALTHCHECK --interval=10s --timeout=5s --start-period=480s --retries=3 \
    CMD ["python", "-m", "byoa.container.health"]
ENTRYPOINT ["python", "-m", "byoa.container"]
COPY --from=project /project/opt/byoa /opt/byoa
