"""`python -m lodestar.serving.prove RUN_ID`: the last step of an image's build.

The artifact that was baked into the project here is verified, its recorded predictions are made again
with what the image has installed, and the plan by which its rows are scored is proven and kept, so that
no container has to. It needs neither a config nor a server.
"""

import sys
from pathlib import Path

from lodestar.artifact.local_runs import BAKED
from lodestar.artifact.register import Register
from lodestar.errors import ArtifactError, LodestarError
from lodestar.serving import proving
from lodestar.serving.state import ServedRun

__all__ = ["main", "prove"]


def prove(project: Path, run_id: str) -> str:
    """Verify the baked artifact of a run and keep its plan; returns how rows are scored.

    Raises:
        ArtifactError: there is none, or it is rejected.
    """
    run = Register(project / BAKED).run(run_id)
    if run is None:
        raise ArtifactError(f"no artifact of run {run_id} was baked in", where=str(project / BAKED))
    return proving.prove(project, ServedRun.of(run), native=True).name


def main() -> int:
    """Run it; returns the exit code."""
    try:
        scored = prove(Path.cwd(), sys.argv[1])
    except LodestarError as error:
        sys.stderr.write(f"error: {error}\n")
        return error.exit_code
    sys.stderr.write(f"rows are scored by the {scored} way\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
