# blendrun on SGLang's own image, which brings CUDA, torch, FlashInfer and the runtime:
#
#     docker build -t blendrun .
#     docker run --rm --init --gpus all --shm-size 16g -e HF_TOKEN \
#         -v "$PWD:/work" -v "$HOME/.cache/huggingface:/root/.cache/huggingface" \
#         blendrun run jobs.jsonl --model qwen2.5-7b -o answers.jsonl
#
# --init: signals reach blendrun, which ends its engine. Another version: --build-arg SGLANG=v0.5.22
ARG SGLANG=v0.5.23
FROM lmsysorg/sglang:${SGLANG}

# The image's Python is the system's own, and nothing else is to run in it.
ENV PIP_BREAK_SYSTEM_PACKAGES=1 PIP_NO_CACHE_DIR=1

WORKDIR /opt/blendrun
COPY pyproject.toml README.md LICENSE ./
COPY configs configs
COPY blendrun blendrun
# Without the `sglang` extra, and no package of the image in another version. gguf reads GGUF files, pyarrow Parquet.
RUN python3 -m pip list --format=freeze --exclude-editable > /tmp/image.txt \
    && python3 -m pip install --constraint /tmp/image.txt . "gguf>=0.10" "pyarrow>=18" \
    && rm /tmp/image.txt

WORKDIR /work
ENTRYPOINT ["blendrun"]
CMD ["--help"]
