"""The other servers, each in a process of its own: what one would write or install without Lodestar.

The FastAPI app, LitServe and MLServer do the same work: keys → nine features by Feast from the same
Redis → pandas → scikit-learn's ColumnTransformer → 300 XGBoost trees. Two more answer a constant.
"""

import json
import os
import subprocess
import sys
import sysconfig
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from pathlib import Path
from typing import Any

from serving_feast import FeastModel

__all__ = ["PEERS", "peer_python"]

HOST = "127.0.0.1"
CONSTANT = {
    "prediction": 1,
    "probabilities": {"0": 0.24151962995529175, "1": 0.7584803700447083},
    "run_id": "0123456789abcdef0123456789abcdef",
}
BATCH, WAIT = 64, 0.005  # what MLServer may gather, and for how long (seconds)


def fastapi_feast(port: str) -> None:
    """The app that everyone writes."""
    from fastapi import FastAPI
    from pydantic import BaseModel

    class Keys(BaseModel):
        user_id: str
        product_id: str
        session_id: str

    class Said(BaseModel):
        prediction: int
        probabilities: dict[str, float]

    app, model = FastAPI(), FeastModel()

    @app.post("/predict")
    def predict(keys: Keys) -> Said:
        no, yes = model.probabilities([keys.model_dump()])[0]
        return Said(prediction=int(yes > no), probabilities={"0": no, "1": yes})

    _serve(app, port)


def fastapi_constant(port: str) -> None:
    """What FastAPI and pydantic alone allow."""
    from fastapi import FastAPI
    from pydantic import BaseModel

    class Keys(BaseModel):
        user_id: str
        product_id: str
        session_id: str

    app = FastAPI()

    @app.post("/predict")
    async def predict(keys: Keys) -> dict[str, Any]:
        del keys
        return CONSTANT

    _serve(app, port)


def asgi_constant(port: str) -> None:
    """What uvicorn alone allows."""
    body = json.dumps(CONSTANT, separators=(",", ":")).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
    start = {"type": "http.response.start", "status": 200, "headers": headers}

    async def app(
        scope: MutableMapping[str, Any],
        receive: Callable[[], Awaitable[MutableMapping[str, Any]]],
        send: Callable[[MutableMapping[str, Any]], Awaitable[None]],
    ) -> None:
        del scope
        while (await receive()).get("more_body"):
            pass
        await send(start)
        await send({"type": "http.response.body", "body": body})

    _serve(app, port)


def litserve_feast(port: str) -> None:
    """LitServe, batching: the same work as the FastAPI app, many rows at a time."""
    from serving_litserve import FeastApi, serve

    serve(FeastApi, HOST, int(port))


def litserve_core(port: str, run_id: str) -> None:
    """LitServe with our core inside: what is ours and what is the server's is told apart."""
    from serving_litserve import RUN, CoreApi, serve

    os.environ[RUN] = run_id
    serve(CoreApi, HOST, int(port))


def mlserver_feast(port: str) -> None:
    """MLServer, adaptive batching, in one process: the same work, many rows at a time."""
    from lodestar.infra.endpoint import free_port

    folder = Path("mlserver")
    folder.mkdir(exist_ok=True)
    settings = {
        "host": HOST,
        "http_port": int(port),
        "grpc_port": free_port(),
        "metrics_endpoint": None,
        "parallel_workers": 0,
        "debug": False,
        "use_structured_logging": False,
    }
    model = {
        "name": "offer",
        "implementation": "serving_mlserver.FeastRuntime",
        "max_batch_size": BATCH,
        "max_batch_time": WAIT,
    }
    for name, value in (("settings", settings), ("model-settings", model)):
        (folder / f"{name}.json").write_text(json.dumps(value), encoding="utf-8")
    program = str(Path(sys.executable).with_name("mlserver"))
    os.execv(program, [program, "start", str(folder)])  # noqa: S606 -- it takes this process over


def peer_python(folder: Path, package: str) -> str:
    """A Python with a package that only this benchmark needs, on top of the project's own.

    A virtual environment in a temporary folder sees the project's packages, and what it installs goes
    to itself alone.
    """
    place = folder / f"venv-{package}"
    subprocess.run([sys.executable, "-m", "venv", str(place)], check=True)
    python = str(place / "bin" / "python")
    own = Path(sysconfig.get_path("purelib", vars={"base": str(place)}))
    above = sysconfig.get_path("purelib")
    (own / "project.pth").write_text(f"import site; site.addsitedir({above!r})\n", encoding="utf-8")
    command = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", package]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{package} cannot be installed:\n{done.stderr}")
    return python


def _serve(app: Any, port: str) -> None:  # noqa: ANN401 -- an ASGI app
    import uvicorn

    uvicorn.run(
        app, host=HOST, port=int(port), log_level="warning", access_log=False, lifespan="off"
    )


PEERS: Mapping[str, Callable[..., None]] = {
    "fastapi_feast": fastapi_feast,
    "fastapi_constant": fastapi_constant,
    "asgi_constant": asgi_constant,
    "litserve_feast": litserve_feast,
    "litserve_core": litserve_core,
    "mlserver_feast": mlserver_feast,
}


if __name__ == "__main__":
    # Workers that a server starts find the modules beside this one.
    os.environ["PYTHONPATH"] = str(Path(__file__).parent)
    PEERS[sys.argv[1]](*sys.argv[2:])
