"""MLflow asks its plugins for headers before its first request; Feast's would import all of Feast."""

import subprocess
import sys
from pathlib import Path

import pytest

CODE = """
import sys, warnings
warnings.simplefilter("error")
if "ours" in sys.argv:
    from lodestar.artifact.mlflow_plugins import load_header_providers
    load_header_providers()
from mlflow.tracking.request_header.registry import resolve_request_headers
print(sorted(resolve_request_headers()), "feast" in sys.modules)
"""


def asked(tmp_path: Path, *words: str) -> "subprocess.CompletedProcess[str]":
    """MLflow's headers, where importing Feast fails."""
    package = tmp_path / "feast"
    package.mkdir(exist_ok=True)
    (package / "__init__.py").write_text('raise RuntimeError("Feast was imported")\n')
    return subprocess.run(
        [sys.executable, "-c", CODE, *words],
        env={"PYTHONPATH": str(tmp_path), "PATH": ""},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@pytest.mark.faults
def test_mlflows_first_request_imports_feast_unless_we_have_asked_its_plugins_before(
    tmp_path: Path,
) -> None:
    assert "Feast was imported" in asked(tmp_path).stderr
    done = asked(tmp_path, "ours")
    assert done.stdout.endswith(" False\n"), done.stderr
