# farsearch with MLflow's server and Optuna's dashboard: one image for all services of docker-compose.yml, so that
# clients and servers have the same versions.
#
#   docker build --build-arg TORCH_INDEX=<package index of PyTorch's CPU builds> --tag farsearch:0.1.0 .

FROM python:3.12.11-slim-bookworm AS build
ARG TORCH_INDEX=""
ENV PATH=/opt/farsearch/bin:$PATH PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore
WORKDIR /source

# the libraries in a layer of their own, which changes of the code do not rebuild
COPY constraints.txt pyproject.toml ./
RUN python -m venv /opt/farsearch && pip install --constraint constraints.txt pip
RUN python -c "import tomllib; project = tomllib.load(open('pyproject.toml', 'rb'))['project']; \
extras = [project['optional-dependencies'][name] for name in ('dashboard', 'demo', 'postgres')]; \
print(*project['dependencies'], *sum(extras, []), sep='\n')" > requirements.txt \
 && pip install --constraint constraints.txt ${TORCH_INDEX:+--extra-index-url "$TORCH_INDEX"} \
    --requirement requirements.txt

COPY README.md LICENSE ./
COPY search_spaces search_spaces
COPY farsearch farsearch
RUN pip install --no-deps --build-constraint constraints.txt .


FROM python:3.12.11-slim-bookworm
RUN groupadd --gid 10001 farsearch \
 && useradd --uid 10001 --gid farsearch --home-dir /studies --no-create-home --shell /usr/sbin/nologin farsearch \
 && install --directory --owner farsearch --group farsearch /studies /artifacts
COPY --from=build /opt/farsearch /opt/farsearch
ENV PATH=/opt/farsearch/bin:$PATH PYTHONUNBUFFERED=1 MPLCONFIGDIR=/tmp/matplotlib
USER 10001:10001
WORKDIR /studies
ENTRYPOINT ["farsearch"]
CMD ["--help"]
