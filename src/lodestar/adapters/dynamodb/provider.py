"""Features in DynamoDB: a table per namespace, an item per entity; see `layout`.

Proven with boto3 against moto's server, and not against AWS.
"""

from lodestar.adapters.dynamodb.layout import TypedLayout
from lodestar.adapters.dynamodb.store import ItemStore
from lodestar.settings.dynamodb import DynamoDBStore

__all__ = ["DynamoDBOnlineStore"]


class DynamoDBOnlineStore(ItemStore):
    """Reads n entities of all namespaces together, by one request for every hundred items."""

    def __init__(self, config: DynamoDBStore) -> None:
        super().__init__(config, TypedLayout(config.table_prefix, config.tables.expires))
