"""One MLflow tracking server of ours: runs in PostgreSQL, artifacts in a folder that it serves."""

import http.client
import os
import signal
import sys
from pathlib import Path

from pydantic import SecretStr

from lodestar.infra.endpoint import HOST
from lodestar.infra.process import ServerProcess, await_ready
from lodestar.infra.programs import driver

__all__ = ["MlflowServer"]

WITHIN = 180.0
STOP_WITHIN = 10.0
PROBE_TIMEOUT = 5.0
# Asks the database, which /health does not.
PROBE = "/api/2.0/mlflow/experiments/get?experiment_id=0"


class MlflowServer:
    """A tracking server on 127.0.0.1 only; its database's URI stays out of its command line."""

    name = "mlflow"

    def __init__(self, home: Path, port: int, *, database: SecretStr) -> None:
        self.folder = home / self.name
        self.artifacts = self.folder / "artifacts"
        self.port = port
        self._database = database
        self.process = ServerProcess(self.name, home=home, folder=self.folder)

    @property
    def address(self) -> str:
        """Host and port."""
        return f"{HOST}:{self.port}"

    @property
    def uri(self) -> SecretStr:
        """`http://127.0.0.1:port`."""
        return SecretStr(f"http://{self.address}")

    def start(self, *, within: float = WITHIN) -> None:
        """Start it and wait until it answers from its database; what fails is stopped again.

        Raises:
            ExternalError: it ended, or was not ready in time.
        """
        driver("psycopg")
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.artifacts.mkdir(exist_ok=True)
        listen = ("--host", HOST, "--port", str(self.port), "--workers", "1")
        try:
            self.process.start(
                [sys.executable, "-m", "mlflow", "server", *listen],
                environment=self._environment(),
            )
            await_ready(self.process, self.problem, within=within)
        except BaseException:
            self.stop()
            raise

    def stop(self, *, within: float = STOP_WITHIN) -> bool:
        """Let it end its requests; tell whether it ran."""
        return self.process.stop(signal.SIGTERM, within=within, all_of_it=True)

    def problem(self) -> str | None:
        """Why it cannot be used just now; none if it answers from its database."""
        connection = http.client.HTTPConnection(HOST, self.port, timeout=PROBE_TIMEOUT)
        try:
            connection.request("GET", PROBE)
            status = connection.getresponse().status
        except (OSError, http.client.HTTPException) as error:
            return f"no answer: {error}"
        finally:
            connection.close()
        return None if status == http.client.OK else f"it answers with HTTP status {status}"

    def _environment(self) -> dict[str, str]:
        """Ours without what would steer an MLflow: its variables, and those of its web servers."""
        kept = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("MLFLOW_", "_MLFLOW_", "UVICORN_", "GUNICORN_"))
        }
        database = self._database.get_secret_value()
        return kept | {
            "MLFLOW_BACKEND_STORE_URI": database.replace("postgresql:", "postgresql+psycopg:", 1),
            "MLFLOW_ARTIFACTS_DESTINATION": str(self.artifacts.resolve()),
            "MLFLOW_SERVE_ARTIFACTS": "true",
            "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
            "MLFLOW_DISABLE_TELEMETRY": "true",
        }
