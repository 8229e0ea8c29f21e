# crackseg with its locked packages:
#   docker build -t crackseg .                              for the CPU
#   docker build -t crackseg:cuda --build-arg DEVICE=cuda . for NVIDIA GPUs
#   docker build -t crackseg-mlflow --target server .       the server of a team's store (compose.yaml)
ARG PYTHON=3.11
FROM python:${PYTHON}-slim-bookworm AS base
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PYTHONUNBUFFERED=1
WORKDIR /opt/crackseg
COPY constraints.txt ./

FROM base AS server
RUN pip install -c constraints.txt mlflow "psycopg[binary]" boto3 flask-wtf
RUN useradd --create-home mlflow
USER mlflow
WORKDIR /home/mlflow
EXPOSE 5000

FROM base AS crackseg
# DVC asks git.
RUN apt-get update && apt-get install -y --no-install-recommends git && rm -rf /var/lib/apt/lists/*
ARG DEVICE=cpu
COPY pyproject.toml README.md LICENSE ./
COPY src src
# The same versions; PyPI's torch brings CUDA, and of equal versions pip takes torch's own build for the CPU.
RUN case "$DEVICE" in \
      cpu) extra="--extra-index-url https://download.pytorch.org/whl/cpu" ;; \
      cuda) extra="" ;; \
      *) echo "DEVICE=$DEVICE: expected cpu or cuda" >&2; exit 1 ;; \
    esac && \
    pip install -c constraints.txt $extra ".[models,team,export,app,report,geo]"
# The project is mounted at /project; any user may run this.
ENV HOME=/tmp
RUN git config --system --add safe.directory /project
WORKDIR /project
CMD ["crackseg", "--help"]
