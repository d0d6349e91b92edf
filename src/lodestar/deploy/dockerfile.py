"""The image: a Dockerfile of two stages, and what its build may see."""

import json
from collections.abc import Mapping

from lodestar.deploy.service import HOME, PORT, READY, USER, Service

__all__ = ["IGNORED", "base_image", "dockerfile"]

VENV = "/opt/lodestar"
PROBE = f"import urllib.request as web; web.urlopen('http://127.0.0.1:{PORT}{READY}', timeout=4)"
# Nothing but what was rendered: neither a note beside it nor a key gets into a layer.
IGNORED = "*\n!lodestar.txt\n!project\n!requirements.txt\n!wheels\n"
TEXT = """\
# serve-api of run {run_id} ({recipe}), written by `lodestar deploy render`.
# Everything that goes in lies beside this file: the lock, Lodestar itself, the config, the artifact.

FROM {base} AS base
# Trees of LightGBM are grown and read with OpenMP, which slim images do not have.
# hadolint ignore=DL3008
RUN apt-get update \\
    && apt-get install --yes --no-install-recommends libgomp1 \\
    && rm -rf /var/lib/apt/lists/* \\
    && groupadd --gid {user} lodestar \\
    && useradd --uid {user} --gid {user} --no-create-home --home-dir /tmp \\
        --shell /usr/sbin/nologin lodestar

FROM base AS builder
WORKDIR /build
# The environment gets no installer of its own.
RUN python -m venv --without-pip {venv}
COPY requirements.txt ./
# A registry of your own: docker build --secret id=pip,src=pip.conf
RUN --mount=type=secret,id=pip,target=/etc/pip.conf \\
    python -m pip --python {venv} install --no-cache-dir --disable-pip-version-check \\
        --no-deps --only-binary :all: --require-hashes -r requirements.txt
COPY lodestar.txt ./
COPY wheels ./wheels
RUN python -m pip --python {venv} install --no-cache-dir --disable-pip-version-check \\
        --no-deps --no-index --require-hashes -r lodestar.txt
COPY project {home}
WORKDIR {home}
# The artifact is verified, its recorded predictions are made again, and how rows are scored is proven:
# an image that would predict anything else is not built. Then the user below may read it all.
RUN {venv}/bin/python -P -m lodestar.serving.prove {run_id} \\
    && chmod -R a+rX {home}{folders}

FROM base
LABEL {labels}
COPY --from=builder {venv} {venv}
COPY --from=builder {home} {home}
{adapter}ENV PATH={venv}/bin:$PATH \\
    HOME=/tmp \\
    APP_ENV={environment} \\
    PYTHONDONTWRITEBYTECODE=1 \\
    PYTHONUNBUFFERED=1
WORKDIR {home}
# What may be written, where the root file system may not.
VOLUME {volumes}
USER {user}:{user}
EXPOSE {port}
HEALTHCHECK --interval=10s --timeout=5s --start-period=120s --retries=3 \\
    CMD {probe}
ENTRYPOINT {command}
"""


def base_image(python: str) -> str:
    """The slim image of the Python that a run was made with: `3.11.7` → `python:3.11-slim`."""
    major, minor, *_ = python.split(".")
    return f"python:{major}.{minor}-slim"


def dockerfile(service: Service, *, base: str, adapter: str | None = None) -> str:
    """The Dockerfile's text. `adapter` is an image that Lambda's web adapter is copied from."""
    command = ["lodestar", "serve-api", "--run-id", service.run_id]
    command += ["--host", "0.0.0.0", "--port", str(PORT)]  # noqa: S104 -- inside a container
    copied = f"COPY --from={adapter} /lambda-adapter /opt/extensions/lambda-adapter\n"
    places = [f"{HOME}/{path}" for path in service.writable]
    made = f" \\\n    && install -d -o {USER} -g {USER} {' '.join(places)}"
    return TEXT.format(
        run_id=service.run_id,
        recipe=" ".join(service.recipe.split()),
        base=base,
        user=USER,
        venv=VENV,
        home=HOME,
        folders=made if places else "",
        labels=_labels(
            {
                "org.opencontainers.image.title": service.name,
                "org.opencontainers.image.version": service.run_id,
                **service.labels,
            }
        ),
        adapter="" if adapter is None else copied,
        environment=service.environment,
        volumes=json.dumps(list(service.volumes.values())),
        port=PORT,
        probe=json.dumps(["python", "-c", PROBE]),
        command=json.dumps(command),
    )


def _labels(values: Mapping[str, str]) -> str:
    lines = (f"{key}={_quoted(value)}" for key, value in values.items())
    return " \\\n      ".join(lines)


def _quoted(text: str) -> str:
    """In double quotes, with nothing that Docker would fill in."""
    return json.dumps(text, ensure_ascii=False).replace("$", "\\$")
