"""The configs that docs/warehouses.md shows are configs."""

import re
from pathlib import Path

import pytest

from lodestar.settings.loading import load_config

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = re.findall(
    r"```yaml\n(.*?)```", (ROOT / "docs" / "warehouses.md").read_text(), re.DOTALL
)
VARIABLES = {
    "SNOWFLAKE_PRIVATE_KEY": "canary",
    "LODESTAR_FEAST_URI": "postgresql://u:canary@host/feast",
    "LODESTAR_REDIS_URI": "redis://:canary@host:6379/0",
}


@pytest.mark.parametrize("example", EXAMPLES, ids=["snowflake", "bigquery", "feature tables"])
def test_an_example_of_the_page_loads(sample_project: Path, tmp_path: Path, example: str) -> None:
    config = tmp_path / "config"
    config.mkdir()
    base = (sample_project / "config" / "base.yaml").read_text()
    (config / "base.yaml").write_text(base)
    (config / "prod.yaml").write_text(example)
    loaded = load_config(tmp_path, "prod", variables=VARIABLES).config
    assert loaded.data.adapter in example
    assert "canary" not in repr(loaded)
