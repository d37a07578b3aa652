# The image of docs/cloud-tpu.md: calibtrain for TPUs, with buckets. Build it at the root of the repository.
FROM python:3.12-slim
COPY pyproject.toml setup.py MANIFEST.in README.md CHANGELOG.md CONTRIBUTING.md CITATION.cff /src/
COPY requirements /src/requirements
COPY calibtrain /src/calibtrain
COPY configs /src/configs
COPY tokenizers /src/tokenizers
RUN pip install --no-cache-dir -r /src/requirements/runtime.txt \
    && pip install --no-cache-dir '/src[tpu,gcs]' \
    && rm -r /src
# The main process of a container gets signals only if it handles them, as calibtrain does.
ENV PYTHONUNBUFFERED=1
WORKDIR /work
