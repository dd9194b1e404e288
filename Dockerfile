# Two images from one file: `--target api` (no torch, no ONNX) and `--target worker` (CPU and, with a driver, GPU).
# Python 3.11, which the tests run on: constraints.txt holds other versions of some packages for later ones.
FROM python:3.11-slim AS source
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
RUN python -m venv /opt/espalier
WORKDIR /src
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY alembic alembic
COPY models_store models_store
COPY espalier espalier
COPY app app
COPY worker worker

FROM source AS api-packages
RUN /opt/espalier/bin/pip install --constraint constraints.txt .

FROM source AS worker-packages
RUN /opt/espalier/bin/pip install --constraint constraints.txt ".[worker]"

FROM python:3.11-slim AS runtime
ENV PATH=/opt/espalier/bin:$PATH PYTHONUNBUFFERED=1 ESPALIER_DATA_DIR=/var/lib/espalier
RUN useradd --system --uid 10001 --home-dir /var/lib/espalier --create-home espalier
USER 10001
WORKDIR /var/lib/espalier

FROM runtime AS api
COPY --from=api-packages /opt/espalier /opt/espalier
ENV ESPALIER_HOST=0.0.0.0
EXPOSE 8000
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s \
  CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8000/healthz', timeout=4)"]
CMD ["python", "-m", "app"]

FROM runtime AS worker
COPY --from=worker-packages /opt/espalier /opt/espalier
CMD ["python", "-m", "worker"]
