"""The tables of namespaces: made as the config says where they are missing, or refused."""

import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from time import monotonic
from typing import Any

from lodestar.adapters.changes import Change, Changes
from lodestar.adapters.dynamodb.calls import DynamoDBCalls
from lodestar.adapters.dynamodb.errors import RefusedError
from lodestar.adapters.dynamodb.layout import ItemLayout
from lodestar.errors import ExternalError, NotAllowedError, UsageError
from lodestar.settings.dynamodb import DynamoDBStore
from lodestar.settings.features import FeatureView

__all__ = ["DeclaredTables", "Tables"]

CONTROL = 15.0  # seconds for one request that makes or changes a table
ACTIVE_WITHIN = 120.0
POLL = 0.3
NOT_YET = "NOT THERE YET"  # what was just made may not be seen at once
SOON = {"ContinuousBackupsUnavailableException", "ResourceInUseException"}


class Tables:
    """Knows which tables are there; `calls` looks, within the deadline of any read."""

    def __init__(self, calls: DynamoDBCalls, store: DynamoDBStore, layout: ItemLayout) -> None:
        self._calls = calls
        self._options = store.tables
        self._layout = layout
        # Making a table takes longer than a read may.
        longer = store.model_copy(update={"timeout": max(store.timeout, CONTROL)})
        self._control = DynamoDBCalls(longer)
        self._seen: set[str] = set()

    @property
    def place(self) -> str:
        """Where they are, in words."""
        return self._calls.opened.place

    def require(self, view: FeatureView) -> None:
        """See that a namespace's table is there, once; make it where that is allowed.

        Raises:
            NotAllowedError: it is not, and making it is not allowed.
            UsageError: a table of that name has another key.
        """
        table = self._layout.table(view.namespace)
        if table in self._seen:
            return
        described = self._while(table, {"DELETING"}, self._described(table))
        if described is None:
            if not self._options.create:
                raise self._may_not_make([table])
            self._make(table)
        else:
            self._require_key(table, described)
            self._while(table, {"CREATING"}, described)
        self._seen.add(table)

    def changes(self, views: Sequence[FeatureView]) -> Changes:
        """What `apply` would do: make tables; turn on what is off where making one broke off.

        Raises:
            NotAllowedError: tables are missing, and making them is not allowed.
            UsageError: a table of such a name has another key.
        """
        items: list[Change] = []
        missing: list[str] = []
        for table in [self._layout.table(view.namespace) for view in views]:
            described = self._described(table)
            if described is None:
                missing.append(table)
                items.append(Change("+", table, f"new, {self._said()}"))
                continue
            self._require_key(table, described)
            if self._options.create:
                items += [Change("~", table, what) for what in self._left_off(table)]
        if missing and not self._options.create:
            raise self._may_not_make(missing)
        return Changes(tuple(items))

    def apply(self, views: Sequence[FeatureView], agreed: Changes) -> None:
        """Do it.

        Raises:
            UsageError: the tables have changed since they were looked at.
        """
        if self.changes(views) != agreed:
            raise UsageError("the tables have changed since they were looked at", hint="look again")
        for view in views:
            self.require(view)
            if self._options.create:
                self._turn_on(self._layout.table(view.namespace))

    def close(self) -> None:
        """Close what making tables has opened."""
        self._control.close()

    def _may_not_make(self, tables: Sequence[str]) -> NotAllowedError:
        return NotAllowedError(
            f"there is no table {', '.join(tables)} in {self.place}, and the config does not allow to "
            "make any",
            hint=f"make them with the partition key {self._layout.key} (text) alone, or set "
            "feature_store.dynamodb.tables.create: true",
        )

    def _described(self, table: str) -> Mapping[str, Any] | None:
        try:
            answer = self._calls.within("describe_table", {"TableName": table})
        except RefusedError as error:
            if error.table_is_missing:
                return None
            raise
        found: Mapping[str, Any] = answer["Table"]
        return found

    def _require_key(self, table: str, described: Mapping[str, Any]) -> None:
        keys = [(one["AttributeName"], one["KeyType"]) for one in described["KeySchema"]]
        types = {
            one["AttributeName"]: one["AttributeType"] for one in described["AttributeDefinitions"]
        }
        key = self._layout.key
        if keys != [(key, "HASH")] or types.get(key) != "S":
            said = ", ".join(f"{name} ({types.get(name)})" for name, _ in keys)
            raise UsageError(
                f"the table {table} is keyed by {said}, and not by {key} (S) alone",
                hint="set feature_store.dynamodb.table_prefix, so that tables are not shared",
            )

    def _make(self, table: str) -> None:
        try:
            self._control.within("create_table", self._creation(table))
        except RefusedError as error:
            if error.code != "ResourceInUseException":  # another has made it meanwhile
                raise
        self._while(table, {"CREATING", NOT_YET}, {"TableStatus": NOT_YET})
        self._turn_on(table)

    def _creation(self, table: str) -> dict[str, Any]:
        options, key = self._options, self._layout.key
        request: dict[str, Any] = {
            "TableName": table,
            "KeySchema": [{"AttributeName": key, "KeyType": "HASH"}],
            "AttributeDefinitions": [{"AttributeName": key, "AttributeType": "S"}],
            "DeletionProtectionEnabled": options.deletion_protection,
            "Tags": [
                {"Key": name, "Value": value}
                for name, value in {"managed_by": "lodestar", **options.tags}.items()
            ],
        }
        if options.billing == "on_demand":
            request["BillingMode"] = "PAY_PER_REQUEST"
        else:
            request["BillingMode"] = "PROVISIONED"
            request["ProvisionedThroughput"] = {
                "ReadCapacityUnits": options.read_units,
                "WriteCapacityUnits": options.write_units,
            }
        if options.kms_key is not None:
            request["SSESpecification"] = {
                "Enabled": True,
                "SSEType": "KMS",
                "KMSMasterKeyId": options.kms_key,
            }
        return request

    def _said(self) -> str:
        options = self._options
        words = ["on demand"]
        if options.billing == "provisioned":
            words = [f"{options.read_units} read and {options.write_units} write units"]
        if options.backups:
            words.append(f"backups of {options.backup_days} days")
        if options.expires:
            words.append(f"items expire by {options.expires}")
        if options.kms_key:
            words.append("encrypted with the key given")
        if options.deletion_protection:
            words.append("protected from deletion")
        return ", ".join(words)

    def _left_off(self, table: str) -> list[str]:
        """What the config asks for and the table does not have."""
        options, words = self._options, []
        if options.backups and not self._has_backups(table):
            words.append(f"backups of {options.backup_days} days, were off")
        if options.expires and not self._expires(table):
            words.append(f"items expire by {options.expires}, did not")
        return words

    def _turn_on(self, table: str) -> None:
        options = self._options
        if options.backups and not self._has_backups(table):
            specification = {
                "PointInTimeRecoveryEnabled": True,
                "RecoveryPeriodInDays": options.backup_days,
            }
            self._change(
                "update_continuous_backups",
                {"TableName": table, "PointInTimeRecoverySpecification": specification},
            )
        if options.expires and not self._expires(table):
            self._change(
                "update_time_to_live",
                {
                    "TableName": table,
                    "TimeToLiveSpecification": {"Enabled": True, "AttributeName": options.expires},
                },
            )

    def _change(self, operation: str, request: Mapping[str, Any]) -> None:
        """A table that was just made may not take changes yet."""
        ends = monotonic() + ACTIVE_WITHIN
        while True:
            try:
                self._control.within(operation, request)
            except RefusedError as error:
                if error.code not in SOON or monotonic() > ends:
                    raise
                time.sleep(POLL)
            else:
                return

    def _has_backups(self, table: str) -> bool:
        answer = self._control.within("describe_continuous_backups", {"TableName": table})
        said = answer["ContinuousBackupsDescription"].get("PointInTimeRecoveryDescription", {})
        return bool(said.get("PointInTimeRecoveryStatus") == "ENABLED")

    def _expires(self, table: str) -> bool:
        answer = self._control.within("describe_time_to_live", {"TableName": table})
        said = answer["TimeToLiveDescription"]
        on = said.get("TimeToLiveStatus") in {"ENABLED", "ENABLING"}
        return bool(on and said.get("AttributeName") == self._options.expires)

    def _while(
        self, table: str, states: Collection[str], described: Mapping[str, Any] | None
    ) -> Mapping[str, Any] | None:
        """Wait until a table is in none of these states; what it is then, None where it is gone."""
        ends = monotonic() + ACTIVE_WITHIN
        while described is not None and described["TableStatus"] in states:
            if monotonic() > ends:
                raise ExternalError(
                    f"the table {table} in {self.place} is {described['TableStatus']} for "
                    f"{ACTIVE_WITHIN:g} s",
                    hint="look at it in AWS, then run the command again",
                )
            time.sleep(0 if described["TableStatus"] == NOT_YET else POLL)
            described = self._described(table)
            if described is None and NOT_YET in states:
                described = {"TableStatus": "CREATING"}
        return described


@dataclass(frozen=True)
class DeclaredTables:
    """The tables that declarations need, for `features apply`; `project` says where, in words."""

    tables: Tables
    views: Sequence[FeatureView]

    @property
    def project(self) -> str:
        """Where they are."""
        return self.tables.place

    def diff(self) -> Changes:
        """What `apply` would do; nothing is changed."""
        return self.tables.changes(self.views)

    def apply(self, agreed: Changes) -> None:
        """Do what was agreed."""
        self.tables.apply(self.views, agreed)
