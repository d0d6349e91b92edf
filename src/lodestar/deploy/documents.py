"""Plain values as YAML and JSON, the same bytes for the same values."""

import json
from collections.abc import Mapping
from io import StringIO
from typing import Any

from ruamel.yaml import YAML

__all__ = ["Value", "json_text", "yaml_text"]

Value = Mapping[str, Any]


def yaml_text(*documents: Value, header: str = "") -> str:
    """YAML in the order of the keys; `header` stands on top as a comment."""
    stream = StringIO()
    stream.writelines(f"# {line}".rstrip() + "\n" for line in header.splitlines())
    writer = YAML(typ="safe", pure=True)
    writer.default_flow_style = False
    writer.sort_base_mapping_type_on_output = False  # type: ignore[assignment]  # typed as None
    writer.width = 1_000_000
    writer.allow_unicode = True
    for position, document in enumerate(documents):
        if position:
            stream.write("---\n")
        # Written out once more where it stands again: anchors are for machines.
        writer.dump(json.loads(json.dumps(document)), stream)
    return stream.getvalue()


def json_text(document: Value) -> str:
    """JSON in the order of the keys."""
    return json.dumps(document, indent=2, ensure_ascii=False) + "\n"
