ARG GOOD
FROM ${GOOD}
RUN mkdir -p /usr/local/cuda/lib64 && touch /usr/local/cuda/lib64/libcudart.so.12
ENV NVIDIA_VISIBLE_DEVICES=all NVIDIA_DRIVER_CAPABILITIES=graphics
