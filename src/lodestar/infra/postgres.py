"""One PostgreSQL of ours, over TCP with passwords; as another user where we are root."""

import os
import shutil
import signal
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

from pydantic import SecretStr

from lodestar.errors import ExternalError
from lodestar.infra.account import Account, server_account
from lodestar.infra.endpoint import HOST, Endpoint
from lodestar.infra.process import ServerProcess, await_ready
from lodestar.infra.programs import copied_programs, driver, postgres_programs

__all__ = ["DATABASES", "USER", "PostgresServer"]

USER = "lodestar"
# The team's data, what the tracking server keeps, and Feast's registry.
DATABASES = ("lodestar", "mlflow", "feast")
WITHIN = 60.0
PROBE_TIMEOUT = 2
INIT_TIMEOUT = 120.0
UNFINISHED = ".postgres-"
# Minimal write-ahead log: rows copied into a table made in the same transaction need none.
CONFIG = """
listen_addresses = '{host}'
unix_socket_directories = ''
password_encryption = 'scram-sha-256'
timezone = 'UTC'
log_timezone = 'UTC'
shared_buffers = '256MB'
maintenance_work_mem = '256MB'
max_wal_size = '2GB'
wal_level = minimal
max_wal_senders = 0
log_min_error_statement = panic
"""
HBA = "host all all {host}/32 scram-sha-256\n"


class PostgresServer:
    """A PostgreSQL server with its data in `home/postgres`, on 127.0.0.1 only.

    The user `lodestar` owns the databases and may make more; nobody knows the superuser's password.
    """

    name = "postgres"

    def __init__(self, home: Path, endpoint: Endpoint) -> None:
        self.folder = home / self.name
        self.endpoint = endpoint
        self.process = ServerProcess(self.name, home=home, folder=self.folder)

    @property
    def address(self) -> str:
        """Host and port."""
        return self.endpoint.address

    @property
    def uri(self) -> SecretStr:
        """`postgresql://lodestar:password@127.0.0.1:port/lodestar`."""
        return self.uri_of(DATABASES[0])

    def uri_of(self, database: str) -> SecretStr:
        """The same for another database."""
        password = self.endpoint.password.get_secret_value()
        return SecretStr(f"postgresql://{USER}:{password}@{self.endpoint.address}/{database}")

    def renew_password(self) -> None:
        """Make the endpoint's password that of data made with another one; it may not run."""
        if self._is_made():
            runner = _Runner.here(self.folder.parent)
            runner.tell(self.folder, f"ALTER ROLE {USER} {_password(self.endpoint.password)};")

    def start(self, *, within: float = WITHIN) -> None:
        """Make the data folder once, start, and wait for an answer; what fails is stopped again.

        Raises:
            ExternalError: it is not installed, cannot be run by this user, or is not ready in time.
        """
        driver("psycopg")
        runner = _Runner.here(self.folder.parent)
        if not self._is_made():
            _initialise(runner, self.folder, self.endpoint.password)
        elif self.process.alone():
            # Of a killed server. Its number may be another process's by now, or wait for its parent.
            (self.folder / "postmaster.pid").unlink(missing_ok=True)
        place = ("-D", str(self.folder.resolve()), "-p", str(self.endpoint.port))
        try:
            self.process.start(
                [str(runner.programs / "postgres"), *place],
                environment=_environment(),
                account=runner.account,
            )
            await_ready(self.process, self.problem, within=within)
            self._add_databases()
        except BaseException:
            self.stop()
            raise

    def stop(self, *, within: float = WITHIN) -> bool:
        """End it at once, with its connections, and all data on disk; tell whether it ran."""
        return self.process.stop(signal.SIGINT, within=within)

    def problem(self) -> str | None:
        """Why it cannot be used just now; none if it answers to the password."""
        psycopg = driver("psycopg")
        try:
            with psycopg.connect(
                self.uri.get_secret_value(), connect_timeout=PROBE_TIMEOUT
            ) as connection:
                connection.execute("SELECT 1")
        except psycopg.OperationalError as error:
            return str(error).split("\n")[0].rpartition("failed: ")[2].strip()
        return None

    def _add_databases(self) -> None:
        """Make those that the data of an older version lack."""
        psycopg = driver("psycopg")
        with psycopg.connect(self.uri.get_secret_value(), autocommit=True) as connection:
            there = {name for (name,) in connection.execute("SELECT datname FROM pg_database")}
            for name in DATABASES:
                if name not in there:
                    connection.execute(f"CREATE DATABASE {name}")

    def _is_made(self) -> bool:
        return (self.folder / "PG_VERSION").is_file()


@dataclass(frozen=True)
class _Runner:
    """PostgreSQL's programs and, where we are root, who runs them."""

    programs: Path
    account: Account | None

    @classmethod
    def here(cls, home: Path) -> "_Runner":
        """Choose them; programs that the other user cannot reach are copied to `home`.

        Raises:
            ExternalError: that user cannot even enter `home`.
        """
        programs, account = postgres_programs(), server_account(home)
        if account is None or account.reaches(programs):
            return cls(programs, account).checked(home)
        return cls(copied_programs(programs, home / "programs"), account).checked(home)

    def checked(self, home: Path) -> "_Runner":
        """Itself, if who runs the server can enter its folder."""
        if self.account and not self.account.reaches(home):
            raise ExternalError(
                f"PostgreSQL refuses to run as root, and the user {self.account.name}, who would "
                "run it, cannot enter this folder or one above it",
                where=str(home),
                hint="let others enter these folders (chmod o+x), move the project, or run the "
                "command as a normal user",
            )
        return self

    def tell(self, data: Path, *statements: str) -> None:
        """Run statements as the superuser, over no connection, while no server runs."""
        single = ("--single", "-F", "-D", str(data), "-c", "exit_on_error=on", "postgres")
        self.run("postgres", *single, cwd=data, text="".join(f"{line}\n" for line in statements))

    def run(self, program: str, *args: str, cwd: Path, text: str = "") -> None:
        """Run one of them to its end."""
        try:
            subprocess.run(  # noqa: S603 -- PostgreSQL's own programs, by their path
                [str(self.programs / program), *args],
                input=text,
                cwd=cwd,
                env=_environment(),
                capture_output=True,
                text=True,
                check=True,
                timeout=INIT_TIMEOUT,
                **(self.account.of_process() if self.account else {}),
            )
        except subprocess.TimeoutExpired as error:
            raise ExternalError(f"{program} did not end within {INIT_TIMEOUT:g} s") from error
        except subprocess.CalledProcessError as error:
            said = (error.stderr.strip() or "nothing").split("\n")[-1]
            raise ExternalError(f"{program} failed; it said: {said}") from error
        except OSError as error:
            raise ExternalError(f"{program} cannot be run: {error.strerror}") from error


def _initialise(runner: _Runner, folder: Path, password: SecretStr) -> None:
    """Make the data folder beside its place, and move it there when it is complete.

    Nothing waits for the disk: what a power cut could break in the first seconds is made again.
    """
    for left in folder.parent.glob(f"{UNFINISHED}*"):
        shutil.rmtree(left, ignore_errors=True)
    made = Path(tempfile.mkdtemp(prefix=UNFINISHED, dir=folder.parent))
    try:
        data, secret = made / "data", made / "password"
        data.mkdir(mode=0o700)
        secret.write_text(Endpoint.fresh().password.get_secret_value(), encoding="utf-8")
        if runner.account:
            runner.account.own(made)
        options = ("--username=postgres", "--auth=scram-sha-256", f"--pwfile={secret}")
        form = ("--encoding=UTF8", "--locale=C", "--no-instructions", "--no-sync")
        runner.run("initdb", "-D", str(data), *options, *form, cwd=data)
        with (data / "postgresql.conf").open("a", encoding="utf-8") as config:
            config.write(CONFIG.format(host=HOST))
        (data / "pg_hba.conf").write_text(HBA.format(host=HOST), encoding="utf-8")
        databases = (f"CREATE DATABASE {name} OWNER {USER};" for name in DATABASES)
        runner.tell(data, f"CREATE ROLE {USER} LOGIN CREATEDB {_password(password)};", *databases)
        data.rename(folder)
    except OSError as error:
        raise ExternalError(f"cannot be made: {error.strerror}", where=str(folder)) from error
    finally:
        shutil.rmtree(made, ignore_errors=True)


def _password(password: SecretStr) -> str:
    return f"PASSWORD '{password.get_secret_value()}'"


def _environment() -> dict[str, str]:
    return {"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C", "TZ": "UTC"}
