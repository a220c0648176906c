# One image for both services: they are one code base with two entry points.
ARG PYTHON_IMAGE=python:3.13-slim
FROM ${PYTHON_IMAGE}

ENV PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 PYTHONPATH=/app
WORKDIR /app

# The packages first: they change less often than the code.
COPY locks/services.txt locks/services.txt
RUN pip install --no-cache-dir --disable-pip-version-check --require-hashes --no-deps -r locks/services.txt

COPY shared shared
COPY generation_svc generation_svc
COPY storage_svc storage_svc
COPY velro velro

# No service needs more than a directory of its own to spool into.
RUN useradd --system --uid 10001 velro && mkdir -p /var/lib/velro/spool && chown -R velro /var/lib/velro
ENV VELRO_SPOOL_DIR=/var/lib/velro/spool
USER velro
