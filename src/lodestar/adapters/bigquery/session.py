"""One client of BigQuery: every call bounded and asked again with jitter, its errors ours."""

import concurrent.futures
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import cached_property
from pathlib import Path
from typing import IO, Any, Self
from urllib.parse import urlsplit

import pyarrow as pa

from lodestar.adapters.bigquery.driver import credentials_of, driver
from lodestar.adapters.bigquery.errors import call_failed, credentials_failed, export_failed
from lodestar.errors import ExternalError, LodestarError, UsageError
from lodestar.settings.warehouses import BigQuery

__all__ = ["Session"]

GRACE = 10  # seconds that we wait longer for a job than it may take
QUEUED_PAGES = 2
_NO_LABEL = re.compile(r"[^a-z0-9_-]+")
_LONGEST_LABEL = 63


class Session:
    """A client of one project, in a `with` block.

    Its methods raise LodestarErrors alone.
    """

    def __init__(self, config: BigQuery, project: Path) -> None:
        self._config = config
        self._driver = driver("google.cloud.bigquery")
        self._credentials = credentials_of(config, project)
        options = {"api_endpoint": config.endpoint_url} if config.endpoint_url else None
        self._client = self._driver.Client(
            project=config.project,
            credentials=self._credentials,
            location=config.location,
            client_options=options,
        )
        self._left = ExitStack()
        self._again = self._driver.DEFAULT_RETRY.with_timeout(config.retry_timeout).with_delay(
            initial=0.5, maximum=10.0
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        with self._left:
            self._client.close()

    def dry_run(self, sql: str) -> Any:  # noqa: ANN401 -- the client's job
        """A job that does not run: it knows the columns, the bytes and the types of the parameters."""
        settings = self._settings(dry_run=True, use_query_cache=False)
        return self._asked(sql, settings)

    def query(self, sql: str, parameters: Sequence[Any] = ()) -> Any:  # noqa: ANN401 -- the client's rows
        """Run a query to its end; its rows, not yet fetched."""
        return self._finished(self._started(sql, parameters))

    def export(self, sql: str, parameters: Sequence[Any], uri: str) -> int:
        """Run a query whose rows go to parquet objects `uri`, with a `*`, in its order; how many.

        Raises:
            ExternalError: BigQuery cannot write there.
        """
        options = f"uri = '{uri}', format = 'PARQUET', compression = 'SNAPPY'"
        try:
            job = self._started(f"EXPORT DATA OPTIONS ({options}) AS {sql}", parameters)
            self._finished(job)
        except LodestarError as error:
            raise export_failed(error, uri) from None
        with self._worded():
            job.reload(retry=self._again, timeout=self._config.request_timeout)
        statistics = job._properties["statistics"]["query"]  # noqa: SLF001 -- no public name
        return int(statistics["exportDataStatistics"]["rowCount"])

    def stream(
        self, sql: str, parameters: Sequence[Any], *, page_rows: int
    ) -> Iterator[pa.RecordBatch]:
        """Run a query; its rows in pages, a few of which are held.

        Raises:
            ExternalError: fewer rows came than there are.
        """
        rows = self._finished(self._started(sql, parameters), page_size=page_rows)
        yield from self._batches(rows)

    def stream_table(self, table: Any, *, page_rows: int) -> Iterator[pa.RecordBatch]:  # noqa: ANN401 -- the client's
        """A table's rows without a query, which cost nothing."""
        with self._worded():
            rows = self._client.list_rows(
                table,
                page_size=page_rows,
                retry=self._again,
                timeout=self._config.request_timeout,
            )
        yield from self._batches(rows)

    def parameters(self, job: Any, values: Mapping[str, str]) -> list[Any]:  # noqa: ANN401 -- the client's
        """Texts in the types that BigQuery infers from where they stand.

        Raises:
            UsageError: a text that is none of its type, or a type that no text can be.
        """
        return [self._parameter(one, values[one.name]) for one in job.undeclared_query_parameters]

    def text(self, name: str, value: str) -> Any:  # noqa: ANN401 -- the client's parameter
        """A parameter that is a text."""
        return self._driver.ScalarQueryParameter(name, "STRING", value)

    def table(self, name: str) -> Any:  # noqa: ANN401 -- the client's table
        """What is known of a table, `project.dataset.table`."""
        with self._worded():
            return self._client.get_table(
                name, retry=self._again, timeout=self._config.request_timeout
            )

    def tables(self, dataset: str) -> list[str]:
        """The names of a dataset's tables."""
        with self._worded():
            listed = self._client.list_tables(
                dataset, retry=self._again, timeout=self._config.request_timeout
            )
            return sorted(one.table_id for one in listed)

    def datasets(self, project: str) -> list[str]:
        """The names of a project's datasets."""
        with self._worded():
            listed = self._client.list_datasets(
                project, retry=self._again, timeout=self._config.request_timeout
            )
            return sorted(one.dataset_id for one in listed)

    def make(self, name: str, columns: Mapping[str, str], *, expires: Any) -> Any:  # noqa: ANN401 -- a datetime; a table
        """An empty table that goes by itself."""
        fields = [self._driver.SchemaField(column, kind) for column, kind in columns.items()]
        table = self._driver.Table(name, schema=fields)
        table.expires = expires
        table.labels = self._labels
        with self._worded():
            return self._client.create_table(
                table, retry=self._again, timeout=self._config.request_timeout
            )

    def load(self, file: IO[bytes], table: Any) -> int:  # noqa: ANN401 -- the client's
        """Append a parquet file's rows to a table; how many."""
        settings = self._driver.LoadJobConfig(
            source_format="PARQUET",
            write_disposition="WRITE_APPEND",
            create_disposition="CREATE_NEVER",
            labels=self._labels,
            job_timeout_ms=self._config.job_timeout * 1000,
        )
        with self._worded():
            job = self._client.load_table_from_file(
                file, table, job_config=settings, timeout=self._config.request_timeout
            )
        self._finished(job)
        return int(job.output_rows)

    def remove(self, name: str) -> None:
        """Remove a table, if it is there."""
        with self._worded():
            self._client.delete_table(
                name,
                not_found_ok=True,
                retry=self._again,
                timeout=self._config.request_timeout,
            )

    def _started(self, sql: str, parameters: Sequence[Any]) -> Any:  # noqa: ANN401 -- the client's job
        settings = self._settings(query_parameters=list(parameters))
        if self._config.maximum_bytes_billed is not None:
            settings.maximum_bytes_billed = self._config.maximum_bytes_billed
        return self._asked(sql, settings)

    def _asked(self, sql: str, settings: Any) -> Any:  # noqa: ANN401 -- the client's settings and job
        with self._worded():
            return self._client.query(
                sql,
                job_config=settings,
                retry=self._again,
                timeout=self._config.request_timeout,
                job_retry=None,
            )

    def _finished(self, job: Any, **options: Any) -> Any:  # noqa: ANN401 -- the client's
        """Wait for a job; one that takes too long is cancelled, so that it costs no more."""
        if job.job_type == "query":
            options["job_retry"] = None
        try:
            with self._worded():
                return job.result(
                    retry=self._again, timeout=self._config.job_timeout + GRACE, **options
                )
        except (concurrent.futures.TimeoutError, KeyboardInterrupt) as error:
            with self._worded():
                job.cancel(retry=None, timeout=GRACE)
            if isinstance(error, KeyboardInterrupt):
                raise
            raise ExternalError(
                f"the job in BigQuery took longer than {self._config.job_timeout} s",
                hint="raise data.bigquery.job_timeout, or let the SQL read fewer rows",
            ) from None

    def _batches(self, rows: Any) -> Iterator[pa.RecordBatch]:  # noqa: ANN401 -- the client's
        came = 0
        try:
            with self._worded():
                for batch in rows.to_arrow_iterable(
                    bqstorage_client=self._storage,
                    max_queue_size=QUEUED_PAGES,
                    max_stream_count=1,  # more of them mix the rows' order
                    timeout=self._config.read_timeout,
                ):
                    came += batch.num_rows
                    yield batch
        except concurrent.futures.TimeoutError:
            raise ExternalError(
                f"reading the rows from BigQuery took longer than {self._config.read_timeout} s",
                hint="raise data.bigquery.read_timeout, or let the SQL give fewer rows",
            ) from None
        if came != rows.total_rows:
            raise ExternalError(
                f"BigQuery sent {came:,} of {rows.total_rows:,} rows",
                hint="nothing was kept of them; try again",
            )

    @cached_property
    def _storage(self) -> Any:  # noqa: ANN401 -- the client of another API; None without it
        if not self._config.storage_api:
            return None
        storage = driver("google.cloud.bigquery_storage_v1")
        address = urlsplit(self._config.storage_endpoint_url or "")
        if address.scheme == "http":  # without TLS no token is sent either
            services = "google.cloud.bigquery_storage_v1.services.big_query_read.transports"
            channel = driver("grpc").insecure_channel(address.netloc)
            transport = driver(services).BigQueryReadGrpcTransport(channel=channel)
            return self._left.enter_context(storage.BigQueryReadClient(transport=transport))
        options = {"api_endpoint": address.netloc} if address.netloc else None
        client = storage.BigQueryReadClient(credentials=self._credentials, client_options=options)
        return self._left.enter_context(client)

    @property
    def _labels(self) -> dict[str, str]:
        text = _NO_LABEL.sub("-", self._config.application_name.lower())
        return {"application": text[:_LONGEST_LABEL]}

    def _settings(self, **settings: Any) -> Any:  # noqa: ANN401 -- the client's
        made = self._driver.QueryJobConfig(labels=self._labels, **settings)
        made.job_timeout_ms = self._config.job_timeout * 1000
        if self._config.dataset is not None:
            made.default_dataset = f"{self._config.project}.{self._config.dataset}"
        return made

    def _parameter(self, one: Any, value: str) -> Any:  # noqa: ANN401 -- the client's
        kind = getattr(one, "type_", None)
        try:
            made = self._driver.ScalarQueryParameter(one.name, kind, value)
            made.to_api_repr()
        except (TypeError, ValueError, AttributeError) as error:
            raise UsageError(
                f"--context-params: {one.name} is no {kind or 'single value'}, as the SQL uses it",
                hint="give another value, or say the type in the SQL: CAST(:name AS text)",
            ) from error
        return made

    @contextmanager
    def _worded(self) -> Iterator[None]:
        """The client's errors as ours; without their causes, which name requests and hold tokens."""
        api = driver("google.api_core.exceptions")
        auth = driver("google.auth.exceptions")
        requests = driver("requests.exceptions")
        try:
            yield
        except (auth.DefaultCredentialsError, auth.RefreshError) as error:
            raise credentials_failed(error) from None
        except api.RetryError as error:
            cause = error.cause if error.cause is not None else error
            raise call_failed(cause, project=self._config.project) from None
        except (api.GoogleAPIError, auth.TransportError, requests.RequestException) as error:
            raise call_failed(error, project=self._config.project) from None
