"""The tags that Lodestar gives to runs, registered models and their versions."""

__all__ = [
    "CLASS_PATH",
    "DIGEST",
    "DRIFT",
    "EXPERIMENT",
    "HISTORY",
    "LABELS",
    "MODEL_ID",
    "OWNER",
    "PENDING_ID",
    "PERFORMANCE",
    "RECIPE",
    "RUN_ID",
    "TASK",
]

RUN_ID = "lodestar.run_id"
DRIFT = "lodestar.drift"
LABELS = "lodestar.labels"
PERFORMANCE = "lodestar.performance"
RECIPE = "lodestar.recipe"
TASK = "lodestar.task"
CLASS_PATH = "lodestar.class_path"
DIGEST = "lodestar.artifact_digest"
MODEL_ID = "lodestar.model_id"
OWNER = "lodestar.owner"  # host/process/start of what is at work on a run
PENDING_ID = "lodestar.pending_id"
EXPERIMENT = "lodestar.experiment"
HISTORY = "lodestar.history."  # + alias: the versions that held it in turn
