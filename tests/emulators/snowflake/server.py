"""A Snowflake to test against: fakesnow's server, with what its client wants besides and with faults.

It runs in a process of its own, on packages of its own (`requirements.txt` beside it). SQL runs in
DuckDB, as fakesnow translates it. Added here: passwords, keys and tokens are checked, larger results
are handed out in chunks by links as Snowflake does it, to later sessions too, a statement that is sent
again runs once, unknown names are refused in Snowflake's words, warehouses can be resumed and sized,
and a test can ask for throttling, broken links, results that are gone and what was said.

Left out, beside all that fakesnow leaves out: access rights, warehouses that cost or queue anything,
locks (DuckDB refuses a second writer where Snowflake lets it wait), time travel, TLS. A temporary
table is a plain one that goes with its session: others see it until then.
"""

import asyncio
import base64
import gzip
import json
import os
import re
import secrets
from collections import defaultdict
from typing import Any

import fakesnow.arrow
import fakesnow.server as fake
import jwt
import pyarrow as pa
import uvicorn
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

KNOWN = json.loads(os.environ["EMULATED_ACCOUNT"])
CHUNK_ROWS = int(KNOWN.get("chunk_rows", 20_000))
CHUNKS: dict[str, list[pa.Buffer]] = {}
RESULTS: dict[str, dict[str, Any]] = {}  # query → its answer, without the links to its chunks
SAID: list[dict[str, Any]] = []  # logins and statements, without their secrets
FAULTS: dict[str, Any] = {}
TEMPORARY: dict[str, list[str]] = {}  # session → its tables
ANSWERS: dict[str, dict[str, asyncio.Task[Response]]] = {}  # session → request → what is said to it
TURNS: dict[str, asyncio.Lock] = defaultdict(asyncio.Lock)  # session → who has its one connection
_TEMPORARY = re.compile(r"^CREATE TEMPORARY TABLE (\S+)")
_WAREHOUSE = re.compile(r"^\s*ALTER WAREHOUSE\b", re.IGNORECASE)


async def login(request: Request) -> Response:
    """Check who it is, then let fakesnow open the session."""
    if throttled("throttle_login"):
        return Response(status_code=429)
    data = (await sent(request))["data"]
    refusal = refused(data)
    query = dict(request.query_params)
    SAID.append({"login": data["LOGIN_NAME"], **query, "parameters": data["SESSION_PARAMETERS"]})
    if refusal is not None:
        return failed(*refusal)
    answer = json.loads((await fake.login_request(request)).body)
    answer["data"] |= {
        "masterToken": secrets.token_hex(8),
        "validityInSeconds": 3600,
        "masterValidityInSeconds": 14_400,
        "sessionId": 1,
    }
    return JSONResponse(answer)


def refused(data: dict[str, Any]) -> tuple[str, str] | None:
    """Snowflake's code and words for wrong credentials."""
    match data.get("AUTHENTICATOR", "SNOWFLAKE").upper():
        case "SNOWFLAKE_JWT":
            try:
                claims = jwt.decode(
                    data["TOKEN"], KNOWN["public_key"], ["RS256"], options={"verify_aud": False}
                )
            except jwt.PyJWTError:
                return "390144", "JWT token is invalid. [a1b2]"
            fits = claims["sub"] == f"{KNOWN['account']}.{KNOWN['user']}".upper()
            return None if fits else ("390144", "JWT token is invalid. [a1b2]")
        case "OAUTH":
            if data["TOKEN"] == KNOWN["expired_token"]:
                return "390318", "OAuth access token expired. [a1b2]"
            known = data["TOKEN"] == KNOWN["oauth_token"]
            return None if known else ("390303", "Invalid OAuth access token. [a1b2]")
        case _:
            known = data["LOGIN_NAME"].upper() == KNOWN["user"].upper()
            if known and data.get("PASSWORD") == KNOWN["password"]:
                return None
            return "390100", "Incorrect username or password was specified."


async def query(request: Request) -> Response:
    """Run a statement once, also where the client sends it again because the answer was late or lost."""
    if throttled("throttle"):
        return Response(status_code=429)
    body = await sent(request)
    answers = ANSWERS.setdefault(fake.to_token(request), {})
    name = request.query_params["requestId"]
    if name in answers:
        SAID.append({"again": body["sqlText"]})
    else:
        answers[name] = asyncio.create_task(answered(request, body))
    return await answers[name]


async def answered(request: Request, body: dict[str, Any]) -> Response:
    """Run a statement, and hand out what is long in chunks."""
    text = body["sqlText"]
    SAID.append({"sql": text, "bindings": body.get("bindings"), "describe": "describeOnly" in body})
    while text.startswith(FAULTS.get("hold", "nothing")):  # noqa: ASYNC110 -- a test ends it by a request
        await asyncio.sleep(0.02)
    if text.startswith(FAULTS.get("fail", "nothing")):
        return failed(*FAULTS.get("as", ("000603", "SQL execution internal error")))
    if text.startswith(FAULTS.get("deny", "nothing")):
        return failed(
            "003001", "SQL access control error:\nInsufficient privileges to operate on schema"
        )
    if _WAREHOUSE.match(text):
        body["sqlText"] = "SELECT 'Statement executed successfully.'"
    elif found := _TEMPORARY.match(text):
        TEMPORARY.setdefault(fake.to_token(request), []).append(found[1])
        body["sqlText"] = text.replace("TEMPORARY ", "", 1)
    # `write_pandas` writes a stage in both kinds of quotes, which fakesnow takes for a URL.
    body["sqlText"] = re.sub(r"'(@\"\w+\")'", r"\1", body["sqlText"])
    async with TURNS[fake.to_token(request)]:
        answer = await fake.query_request(saying(request, body))
    said = json.loads(answer.body)
    if not said["success"]:
        return JSONResponse(in_its_words(said), answer.status_code)
    data = said["data"]
    if "stageInfo" in data:
        data["overwrite"] = True  # the plain way of its stage cannot ask for less
        data["stageInfo"] |= {"region": "local", "endPoint": "", "isClientSideEncrypted": False}
        data["stageInfo"] |= {"storageAccount": None, "path": "", "ftp": None}
    elif data.get("rowsetBase64"):
        RESULTS[data["queryId"]] = said
        return JSONResponse(with_links(said, str(request.base_url)))
    return JSONResponse(said)


async def result(request: Request) -> Response:
    """The answer to a query that ran in this or another session, with links of its own."""
    fake.to_conn(fake.to_token(request))
    query_id = request.path_params["query"]
    SAID.append({"result": query_id})
    if query_id not in RESULTS or FAULTS.get("forgotten_results"):
        return failed("000709", f"Statement {query_id} not found")
    if FAULTS.get("expired_results"):
        return failed("000710", f"Result for query {query_id} has expired")
    return JSONResponse(with_links(RESULTS[query_id], str(request.base_url)))


def with_links(said: dict[str, Any], address: str) -> dict[str, Any]:
    """An answer whose rows are in chunks where they are many."""
    data = dict(said["data"])
    if data["total"] > FAULTS.get("chunk_rows", CHUNK_ROWS):
        in_chunks(data, address)
    return {**said, "data": data}


def saying(request: Request, body: dict[str, Any]) -> Request:
    """The same request with another body."""
    headers = [pair for pair in request.scope["headers"] if pair[0] != b"content-encoding"]
    changed = Request({**request.scope, "headers": headers})
    changed._body = json.dumps(body).encode()
    return changed


async def session(request: Request) -> Response:
    """Log out: what was temporary goes."""
    if request.query_params.get("delete"):
        token = fake.to_token(request)
        async with TURNS[token]:
            for table in TEMPORARY.pop(token, []):
                cursor = fake.sessions[token].cursor()
                await run_in_threadpool(cursor.execute, f"DROP TABLE IF EXISTS {table}")
        ANSWERS.pop(token, None)
    done: Response = await fake.session(request)
    return done


def struct_of(times: pa.ChunkedArray) -> pa.StructArray:
    """Timestamps as Snowflake sends them; fakesnow's own way fails at nulls and before 1970."""
    times = times.combine_chunks()
    micros = times.cast(pa.int64()).fill_null(0).to_numpy()
    epoch, rest = divmod(micros, 1_000_000)
    columns = [pa.array(epoch, pa.int64()), pa.array(rest * 1000, pa.int32())]
    names = ["epoch", "fraction"]
    if times.type.tz:
        columns.append(pa.array([1440], pa.int32()).take(pa.array(micros * 0)))
        names.append("timezone")
    fields = [
        pa.field(name, column.type, nullable=False)
        for name, column in zip(names, columns, strict=True)
    ]
    return pa.StructArray.from_arrays(columns, fields=fields, mask=times.is_null())


def in_chunks(data: dict[str, Any], address: str) -> None:
    """Keep the first rows inline, the others behind links."""
    with pa.ipc.open_stream(base64.b64decode(data["rowsetBase64"])) as reader:
        table = reader.read_all()
    size = FAULTS.get("chunk_rows", CHUNK_ROWS)
    starts = range(size, table.num_rows, size)
    pieces = [gzip.compress(ipc(table.slice(start, size)), 1) for start in starts]
    name = secrets.token_hex(8)
    CHUNKS[name] = pieces
    data["rowsetBase64"] = base64.b64encode(ipc(table.slice(0, size))).decode()
    data["chunks"] = [
        {
            "url": f"{address}chunks/{name}/{number}",
            "rowCount": min(size, table.num_rows - start),
            "uncompressedSize": len(piece) * 3,
            "compressedSize": len(piece),
        }
        for number, (start, piece) in enumerate(zip(starts, pieces, strict=True))
    ]
    if (gone := FAULTS.get("forgotten_chunk")) is not None:
        del data["chunks"][gone - 1]
    data["chunkHeaders"] = {"x-chunk": name}


def ipc(table: pa.Table) -> bytes:
    """Arrow's stream format."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return bytes(sink.getvalue())


async def chunk(request: Request) -> Response:
    """One chunk; a broken link breaks for good, a cut one is shorter than it says."""
    number = int(request.path_params["number"])
    content = CHUNKS[request.path_params["name"]][number]
    if FAULTS.get("lost_chunk") == number:
        return Response(status_code=404)
    if FAULTS.get("cut_chunk") == number:
        content = content[: len(content) // 2]
    return Response(content, headers={"Content-Encoding": "gzip"})


def in_its_words(said: dict[str, Any]) -> dict[str, Any]:
    """DuckDB's complaints about names as Snowflake words them."""
    found = re.search(r"Table with name \"?([\w.]+)\"? does not exist", said["message"])
    if found:
        said["message"] = (
            f"SQL compilation error:\nObject '{found[1]}' does not exist or not authorized."
        )
    found = re.search(r"Table with name \"?([\w.]+)\"? already exists", said["message"])
    if found:
        said |= {"code": "002002"}
        said["message"] = f"SQL compilation error:\nObject '{found[1]}' already exists."
        said["data"] |= {"errorCode": "002002", "sqlState": "42710"}
    found = re.search(r"(?:Referenced|does not have a) column \"?(\w+)\"?", said["message"])
    if found or re.search(r"does not have a column named", said["message"]):
        name = found[1] if found else "?"
        said |= {"code": "000904"}
        said["message"] = (
            f"SQL compilation error: error line 1 at position 7\ninvalid identifier '{name}'"
        )
        said["data"] |= {"errorCode": "000904", "sqlState": "42000"}
    return said


async def control(request: Request) -> Response:
    """What a test asks of this server: faults to set, what was said."""
    if request.method == "POST":
        FAULTS.clear()
        FAULTS.update(await request.json())
        SAID.clear()
    return JSONResponse(SAID)


async def absent(request: Request) -> Response:
    """Whether a file is on the stage already: names are new each time."""
    return Response(status_code=404)


async def nothing(request: Request) -> Response:
    """Telemetry and the like."""
    return JSONResponse({"success": True, "data": None, "code": None, "message": None})


async def sent(request: Request) -> dict[str, Any]:
    """The request's JSON."""
    body = await request.body()
    if request.headers.get("Content-Encoding") == "gzip":
        body = gzip.decompress(body)
    parsed: dict[str, Any] = json.loads(body)
    return parsed


def throttled(name: str) -> bool:
    """Whether this request is one too many."""
    left: int = FAULTS.get(name, 0)
    FAULTS[name] = max(left - 1, 0)
    return left > 0


def failed(code: str, message: str) -> Response:
    """A refusal as Snowflake sends it: status 200."""
    data = {"errorCode": code, "sqlState": "08001"}
    return JSONResponse({"data": data, "code": code, "message": message, "success": False})


def main() -> None:
    """Serve on the socket that the parent listens on."""
    fakesnow.arrow.timestamp_to_sf_struct = struct_of
    ours = {
        "/session": session,
        "/session/v1/login-request": login,
        "/queries/v1/query-request": query,
    }
    routes = [Route(path, handler, methods=["POST"]) for path, handler in ours.items()]
    routes += [route for route in fake.routes if route.path not in ours]
    routes += [
        Route("/chunks/{name}/{number}", chunk),
        Route("/queries/{query}/result", result),
        Route("/fs_bucket/{path:path}", absent, methods=["HEAD", "GET"]),
        Route("/control", control, methods=["GET", "POST"]),
        Route("/{rest:path}", nothing, methods=["GET", "POST", "PUT"]),
    ]
    uvicorn.run(
        Starlette(routes=routes),
        fd=int(os.environ["EMULATOR_SOCKET"]),
        log_level="warning",
        lifespan="off",
    )


if __name__ == "__main__":
    main()
