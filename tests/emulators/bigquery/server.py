"""A small BigQuery to test against: the part of its REST API that Google's client uses here.

Jobs that query (dry runs, parameters, a cap of billed bytes) and jobs that load parquet (in one piece
or several), results in pages, tables and datasets; tokens for a service account. DuckDB does the work.

The Storage API reads a result or a table by one stream, without asking who it is.

`EXPORT DATA` writes parquet objects to the emulated Cloud Storage whose address a test gives, in the
query's order, with the types and names that Google documents; without asking whose bucket it is.

Left out: everything about slots, locations, access rights, scripts, transactions, views, partitions,
clustering, nested and repeated columns, jobs that take time; the Storage API's filters, other formats
and further streams. What a query reads is made up: eight bytes for each value of its tables, whichever
columns it names. A type of a parameter is inferred from a comparison or a cast alone. Tests can ask for
throttling, broken pages, what was said.
"""

import asyncio
import io
import json
import os
import secrets
import tempfile
import uuid
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import google.cloud.storage
import grpc
import jwt
import pyarrow as pa
import pyarrow.parquet as pq
import uvicorn
from google.auth.credentials import AnonymousCredentials
from google.cloud.bigquery_storage_v1.types import (
    ArrowRecordBatch,
    ArrowSchema,
    CreateReadSessionRequest,
    ReadRowsRequest,
    ReadRowsResponse,
    ReadSession,
    ReadStream,
)
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route
from tests.emulators.bigquery.engine import Engine, Plan, Refusal, exported, page

KNOWN = json.loads(os.environ["EMULATED_ACCOUNT"])
PAGE_ROWS = 50_000
ENGINE = Engine()
TOKENS: set[str] = set()
JOBS: dict[str, dict[str, Any]] = {}
RESULTS: dict[str, tuple[pa.Table, list[dict[str, str]]]] = {}
UPLOADS: dict[str, tuple[dict[str, Any], Path]] = {}
SAID: list[dict[str, Any]] = []
FAULTS: dict[str, Any] = {}
STREAM_ROWS = 5_000
FILE_ROWS, GROUP_ROWS = 400, 50  # of an export
STREAMS: dict[str, pa.Table] = {}
SERVERS: list[grpc.Server] = []
STORAGE_PORT: list[int] = []
Handler = Callable[[Request], Awaitable[Response]]


async def token(request: Request) -> Response:
    """A token for whoever signs with the account's key."""
    form = parse_qs((await request.body()).decode())
    try:
        if FAULTS.get("revoked"):
            raise jwt.InvalidTokenError
        assertion = form["assertion"][0]
        jwt.decode(assertion, KNOWN["public_key"], ["RS256"], options={"verify_aud": False})
    except jwt.PyJWTError:
        problem = {"error": "invalid_grant", "error_description": "Invalid JWT Signature."}
        return JSONResponse(problem, 400)
    made = secrets.token_hex(8)
    TOKENS.add(made)
    return JSONResponse({"access_token": made, "expires_in": 3600, "token_type": "Bearer"})


async def new_job(request: Request) -> Response:
    """Run a query at once; its job is done when it is answered."""
    return JSONResponse(await run_in_threadpool(queried, await request.json()))


def queried(body: dict[str, Any]) -> dict[str, Any]:
    """The job of a query."""
    configuration = body["configuration"]
    query = configuration["query"]
    dry = bool(configuration.get("dryRun"))
    SAID.append({"sql": query["query"], "dry": dry, "configuration": configuration})
    given = {one["name"]: one for one in query.get("queryParameters", ())}
    types = {name: one["parameterType"]["type"] for name, one in given.items()}
    with ENGINE.lock:
        plan = ENGINE.plan(query["query"], default_of(query), None if dry and not types else types)
        job = job_of(body, plan)
        if dry:
            return job
        limit = query.get("maximumBytesBilled")
        name = job["jobReference"]["jobId"]
        JOBS[name] = job
        if limit is not None and plan.bytes > int(limit):
            message = (
                f"Query exceeded limit for bytes billed: {limit}. {plan.bytes} or higher required."
            )
            problem = {"reason": "bytesBilledLimitExceeded", "message": message}
            job["status"] |= {"errorResult": problem, "errors": [problem]}
            return job
        if FAULTS.get("deny", "nothing") in query["query"]:
            raise Refusal(403, "accessDenied", "Access Denied: the test said so")
        if FAULTS.get("fail") and FAULTS["fail"] in query["query"]:
            raise Refusal(400, "invalidQuery", "the test said so")
        values = {name: one["parameterValue"].get("value") for name, one in given.items()}
        rows = ENGINE.run(plan, values)
        if plan.export:
            statistics = job["statistics"]["query"]
            statistics |= {"statementType": "EXPORT_DATA", "schema": {"fields": []}}
            statistics["exportDataStatistics"] = export(rows, plan)
            RESULTS[name] = (pa.table({}), [])
        else:
            RESULTS[name] = (rows, plan.schema)
        return job


def export(rows: pa.Table, plan: Plan) -> dict[str, str]:
    """Write rows to a bucket of the emulator that the test names, a file at least; how many."""
    if FAULTS.get("bucket_says"):
        raise Refusal(*FAULTS["bucket_says"])
    bucket, _, name = plan.export["uri"].removeprefix("gs://").partition("/")
    client = google.cloud.storage.Client(
        project="test",
        credentials=AnonymousCredentials(),  # type: ignore[no-untyped-call]  # has no types
        client_options={"api_endpoint": FAULTS["buckets"]},
    )
    if not client.bucket(bucket).exists():
        raise Refusal(404, "notFound", f"Not found: Cloud Storage bucket {bucket} does not exist")
    table = exported(rows, [one["type"] for one in plan.schema])
    if other := FAULTS.get("names"):
        table = table.rename_columns(other)
    most = FAULTS.get("file_rows", FILE_ROWS)
    starts = range(0, max(table.num_rows, 1), most)
    for number, start in enumerate(starts):
        file = io.BytesIO()
        written = table.slice(start, most)
        size = FAULTS.get("group_rows", GROUP_ROWS)
        pq.write_table(written, file, row_group_size=size, store_schema=False)
        blob = client.bucket(bucket).blob(name.replace("*", f"{number:012}"))
        if number != FAULTS.get("forgotten_file"):
            blob.upload_from_string(file.getvalue())
    if FAULTS.get("breaks_off"):
        raise Refusal(400, "invalid", "the test said so")
    return {"fileCount": str(len(starts)), "rowCount": str(table.num_rows)}


def job_of(body: dict[str, Any], plan: Plan) -> dict[str, Any]:
    """The resource of a finished job."""
    name = body["jobReference"].get("jobId") or str(uuid.uuid4())
    project = body["jobReference"]["projectId"]
    place = {"projectId": project, "datasetId": "_anonymous", "tableId": f"anon{name}"}
    body["configuration"]["query"].setdefault("destinationTable", place)
    undeclared = [
        {"name": one, "parameterType": {"type": kind}} for one, kind in plan.parameters.items()
    ]
    statistics = {
        "totalBytesProcessed": str(plan.bytes),
        "schema": {"fields": plan.schema},
        "statementType": "MERGE" if plan.writes else "SELECT",
        "undeclaredQueryParameters": undeclared,
    }
    return {
        "kind": "bigquery#job",
        "id": f"{project}:US.{name}",
        "jobReference": {"projectId": project, "jobId": name, "location": "US"},
        "configuration": body["configuration"],
        "status": {"state": "DONE"},
        "statistics": {"query": statistics, "totalBytesProcessed": str(plan.bytes)},
    }


def default_of(query: dict[str, Any]) -> tuple[str, str] | None:
    """What a table's name without a dataset means."""
    default = query.get("defaultDataset")
    return (default["projectId"], default["datasetId"]) if default else None


async def job(request: Request) -> Response:
    """A job's state; cancelling one is too late."""
    found = JOBS.get(request.path_params["job"])
    if found is None:
        raise Refusal(404, "notFound", f"Not found: Job {request.path_params['job']}")
    return JSONResponse({"job": found} if request.url.path.endswith("/cancel") else found)


async def results(request: Request) -> Response:
    """A page of a query's rows."""
    name = request.path_params["job"]
    error = JOBS[name]["status"].get("errorResult")
    if error is not None:
        raise Refusal(400, error["reason"], error["message"])
    table, schema = RESULTS[name]
    return rows_of(
        request, table, schema, {"jobComplete": True, "jobReference": JOBS[name]["jobReference"]}
    )


async def table_rows(request: Request) -> Response:
    """A page of a table's rows."""
    place = place_of(request)
    ENGINE.require_table(place)
    with ENGINE.lock:
        name = f'"{place[0]}:{place[1]}"."{place[2]}"'
        table = ENGINE.database.sql(f"SELECT * FROM {name}").to_arrow_table()  # noqa: S608 -- quoted; only tests ask
        schema = ENGINE.columns(place)
    return rows_of(request, table, schema, {})


def rows_of(
    request: Request, table: pa.Table, schema: list[dict[str, str]], answer: dict[str, Any]
) -> Response:
    """The rows that a page token and a size ask for; a page that is to be broken is, each time."""
    wanted = request.query_params
    start = int(wanted.get("pageToken") or 0)
    rows = min(int(wanted.get("maxResults") or PAGE_ROWS), PAGE_ROWS)
    end = min(start + rows, table.num_rows)
    kinds = [one["type"] for one in schema]
    answer |= {"schema": {"fields": schema}, "totalRows": str(table.num_rows)}
    if end < table.num_rows and FAULTS.get("forgotten_after", end) >= end:
        answer["pageToken"] = str(end)
    text = (
        json.dumps(answer)[:-1] + ', "rows": ' + page(table.slice(start, end - start), kinds) + "}"
    )
    cut = FAULTS.get("cut_after")
    if cut is None or start < cut:
        return Response(text, media_type="application/json")

    async def half() -> Any:  # noqa: ANN401 -- a stream of bytes
        yield text[: len(text) // 2].encode()
        await asyncio.sleep(0)

    return StreamingResponse(half(), headers={"Content-Length": str(len(text))})


async def upload(request: Request) -> Response:
    """A load job with its file, in one piece or to be resumed."""
    SAID.append({"upload": request.query_params["uploadType"]})
    if FAULTS.get("deny") == "load":
        raise Refusal(403, "accessDenied", "Access Denied: the test said so")
    while FAULTS.get("hold_upload"):  # noqa: ASYNC110 -- a test ends it by a request
        await asyncio.sleep(0.02)
    if request.query_params["uploadType"] == "resumable":
        name = secrets.token_hex(8)
        UPLOADS[name] = (await request.json(), Path(tempfile.mkstemp(suffix=".parquet")[1]))
        return Response(headers={"Location": f"{request.base_url}uploads/{name}"})
    content = await request.body()
    boundary = request.headers["content-type"].partition("boundary=")[2].strip('"').encode()
    _, first, second, *_ = content.split(b"--" + boundary)
    path = Path(tempfile.mkstemp(suffix=".parquet")[1])
    file = second.partition(b"\r\n\r\n")[2].removesuffix(b"\r\n")
    await run_in_threadpool(longer, path, file)
    return JSONResponse(
        await run_in_threadpool(loaded, json.loads(first.partition(b"\r\n\r\n")[2]), path)
    )


async def resumed(request: Request) -> Response:
    """The next piece of an upload."""
    body, path = UPLOADS[request.path_params["upload"]]
    size = await run_in_threadpool(longer, path, await request.body())
    if request.headers["content-range"].endswith("/*"):
        return Response(status_code=308, headers={"Range": f"bytes=0-{size - 1}"})
    return JSONResponse(await run_in_threadpool(loaded, body, path))


def longer(path: Path, piece: bytes) -> int:
    """Append to a file; how long it is."""
    with path.open("ab") as file:
        file.write(piece)
        return file.tell()


def loaded(body: dict[str, Any], path: Path) -> dict[str, Any]:
    """The job of a load."""
    configuration = body["configuration"]
    place = tuple(
        configuration["load"]["destinationTable"][key]
        for key in ("projectId", "datasetId", "tableId")
    )
    SAID.append({"load": ".".join(place), "configuration": configuration})
    with ENGINE.lock:
        rows = ENGINE.load((place[0], place[1], place[2]), str(path))
    path.unlink()
    name = body["jobReference"].get("jobId") or str(uuid.uuid4())
    JOBS[name] = {
        "kind": "bigquery#job",
        "id": name,
        "jobReference": {"projectId": place[0], "jobId": name, "location": "US"},
        "configuration": configuration,
        "status": {"state": "DONE"},
        "statistics": {"load": {"outputRows": str(rows)}},
    }
    return JOBS[name]


async def datasets(request: Request) -> Response:
    """Make one, or list all."""
    project = request.path_params["project"]
    with ENGINE.lock:
        if request.method == "POST":
            dataset = (await request.json())["datasetReference"]["datasetId"]
            ENGINE.add_dataset(project, dataset)
        found = [
            {"datasetReference": {"projectId": one, "datasetId": name}, "id": f"{one}:{name}"}
            for one, name in sorted(ENGINE.datasets)
            if one == project
        ]
    return JSONResponse(found[0] if request.method == "POST" else {"datasets": found})


async def tables(request: Request) -> Response:
    """Make one, or list a dataset's."""
    project, dataset = request.path_params["project"], request.path_params["dataset"]
    with ENGINE.lock:
        ENGINE.require_dataset((project, dataset))
        if request.method == "POST":
            if FAULTS.get("deny_tables"):
                raise Refusal(
                    403,
                    "accessDenied",
                    f"Access Denied: Dataset {project}:{dataset}: Permission bigquery.tables.create "
                    f"denied on dataset {project}:{dataset} (or it may not exist).",
                )
            resource = await request.json()
            place = (project, dataset, resource["tableReference"]["tableId"])
            ENGINE.add_table(place, resource)
            return JSONResponse(ENGINE.describe(place))
        found = [
            {"tableReference": {"projectId": project, "datasetId": dataset, "tableId": place[2]}}
            for place in sorted(ENGINE.tables)
            if place[:2] == (project, dataset)
        ]
    return JSONResponse({"tables": found, "totalItems": len(found)})


async def table(request: Request) -> Response:
    """Describe one, or remove it."""
    with ENGINE.lock:
        if request.method == "DELETE":
            if FAULTS.get("throttle_removal"):
                raise Refusal(403, "rateLimitExceeded", "Exceeded rate limits: too many requests")
            ENGINE.drop_table(place_of(request))
            return Response(status_code=204)
        return JSONResponse(ENGINE.describe(place_of(request)))


def place_of(request: Request) -> tuple[str, str, str]:
    """Project, dataset and table of a path."""
    known = request.path_params
    return known["project"], known["dataset"], known["table"]


async def control(request: Request) -> Response:
    """What a test asks of this server: faults to set, what was said."""
    if request.method == "POST":
        FAULTS.clear()
        FAULTS.update(await request.json())
        SAID.clear()
    return JSONResponse(SAID)


def guarded(handler: Handler) -> Handler:
    """Ask for the token first; word refusals as the API does."""

    async def answer(request: Request) -> Response:
        try:
            bearer = request.headers.get("authorization", "").removeprefix("Bearer ")
            if bearer not in TOKENS:
                raise Refusal(401, "authError", "Invalid Credentials")
            if FAULTS.get("throttle", 0) > 0:
                FAULTS["throttle"] -= 1
                raise Refusal(403, "rateLimitExceeded", "Exceeded rate limits: too many requests")
            return await handler(request)
        except Refusal as error:
            problem = {"reason": error.reason, "message": error.message, "domain": "global"}
            body = {"code": error.status, "message": error.message, "errors": [problem]}
            return JSONResponse({"error": body}, error.status)

    return answer


def new_session(request: CreateReadSessionRequest, context: grpc.ServicerContext) -> ReadSession:
    """A read of a query's rows, or of a table's, by one stream."""
    *_, project, _, dataset, _, name = request.read_session.table.split("/")
    with ENGINE.lock:
        if dataset == "_anonymous":
            rows = RESULTS[name.removeprefix("anon")][0]
        else:
            place = f'"{project}:{dataset}"."{name}"'
            rows = ENGINE.database.sql(f"SELECT * FROM {place}").to_arrow_table()  # noqa: S608 -- quoted; only tests ask
    stream = f"{request.read_session.table}/streams/{secrets.token_hex(8)}"
    STREAMS[stream] = rows
    SAID.append({"stream": request.read_session.table})
    return ReadSession(
        name=stream,
        arrow_schema=ArrowSchema(serialized_schema=bytes(rows.schema.serialize())),
        streams=[ReadStream(name=stream)] if rows.num_rows else [],
        table=request.read_session.table,
    )


def stream_rows(
    request: ReadRowsRequest, context: grpc.ServicerContext
) -> Iterator[ReadRowsResponse]:
    """The rows from an offset on, in record batches of Arrow."""
    rows = STREAMS[request.read_stream].slice(request.offset)
    sent = request.offset
    for batch in rows.to_batches(max_chunksize=STREAM_ROWS):
        if sent >= FAULTS.get("cut_after", sent + 1):
            context.abort(grpc.StatusCode.DATA_LOSS, "the test said so")
        if sent >= FAULTS.get("forgotten_after", sent + 1):
            return
        sent += batch.num_rows
        message = ArrowRecordBatch(serialized_record_batch=bytes(batch.serialize()))
        yield ReadRowsResponse(
            arrow_schema=ArrowSchema(serialized_schema=bytes(rows.schema.serialize())),
            arrow_record_batch=message,
            row_count=batch.num_rows,
        )


def storage() -> int:
    """Serve the Storage API's reads, without TLS; the port."""
    methods = {
        "CreateReadSession": grpc.unary_unary_rpc_method_handler(
            new_session, CreateReadSessionRequest.deserialize, ReadSession.serialize
        ),
        "ReadRows": grpc.unary_stream_rpc_method_handler(
            stream_rows, ReadRowsRequest.deserialize, ReadRowsResponse.serialize
        ),
    }
    server = grpc.server(ThreadPoolExecutor(4))
    name = "google.cloud.bigquery.storage.v1.BigQueryRead"
    server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler(name, methods)])
    port: int = server.add_insecure_port("127.0.0.1:0")
    server.start()
    SERVERS.append(server)
    return port


async def place(request: Request) -> Response:
    """Where the Storage API is."""
    return JSONResponse({"storage": f"http://127.0.0.1:{STORAGE_PORT[0]}"})


def main() -> None:
    """Serve on the socket that the parent listens on."""
    project = "/bigquery/v2/projects/{project}"
    dataset = f"{project}/datasets/{{dataset}}"
    paths: list[tuple[str, Handler, list[str]]] = [
        (f"{project}/jobs", new_job, ["POST"]),
        (f"{project}/jobs/{{job}}", job, ["GET"]),
        (f"{project}/jobs/{{job}}/cancel", job, ["POST"]),
        (f"{project}/queries/{{job}}", results, ["GET"]),
        (f"{project}/datasets", datasets, ["GET", "POST"]),
        (f"{dataset}/tables", tables, ["GET", "POST"]),
        (f"{dataset}/tables/{{table}}", table, ["GET", "DELETE"]),
        (f"{dataset}/tables/{{table}}/data", table_rows, ["GET"]),
        (f"/upload{project}/jobs", upload, ["POST"]),
    ]
    routes = [Route(path, guarded(handler), methods=methods) for path, handler, methods in paths]
    routes += [
        Route("/uploads/{upload}", guarded(resumed), methods=["PUT"]),
        Route("/token", token, methods=["POST"]),
        Route("/control", control, methods=["GET", "POST"]),
        Route("/place", place, methods=["GET"]),
    ]
    STORAGE_PORT.append(storage())
    uvicorn.run(
        Starlette(routes=routes),
        fd=int(os.environ["EMULATOR_SOCKET"]),
        log_level="warning",
        lifespan="off",
    )


if __name__ == "__main__":
    main()
