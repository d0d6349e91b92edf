"""The tags that Lodestar gives to runs, registered models and their versions, and searches by tags."""

__all__ = [
    "CLASS_PATH",
    "DIGEST",
    "DRIFT",
    "EXPERIMENT",
    "HISTORY",
    "LABELS",
    "MODEL_ID",
    "NO_TRIAL",
    "OWNER",
    "PARENT",
    "PENDING_ID",
    "PERFORMANCE",
    "RECIPE",
    "RUNNING",
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
# MLflow's own, of a run that is nested in another, and searches by what runs are.
PARENT = "mlflow.parentRunId"
NO_TRIAL = f"tags.`{PARENT}` IS NULL"
RUNNING = "attributes.status = 'RUNNING'"
HISTORY = "lodestar.history."  # + alias: the versions that held it in turn
