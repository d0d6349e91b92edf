"""Images and containers without Docker: overlays over a minimal Debian, and namespaces. Needs root.

The Debian (debootstrap) stands for a base image. A container is started as Docker would: pid 1 of its
own namespaces, without a network but its loopback, the root file system read only, as the image's user,
without privileges.
"""

import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

__all__ = ["Container", "Image", "container", "debian", "in_root", "why_not"]

SUITES = {(3, 11): "bookworm"}  # the Debian that has this Python
TOOLS = ("debootstrap", "unshare", "nsenter", "chroot", "setpriv", "ip")
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
# How this machine reaches its registries; a real build has the same from its daemon.
NETWORK = ("/etc/resolv.conf", "/etc/hosts", "/etc/ssl/certs", "/etc/apt/apt.conf.d")
NETWORK_VARIABLES = re.compile(r"^(PIP_|SSL_CERT)|_proxy$", re.IGNORECASE)
LONGEST = 900


def why_not() -> str | None:
    """Why there can be no clean root here; None where there can."""
    if os.geteuid() != 0:
        return "a clean root directory needs root"
    missing = [tool for tool in TOOLS if shutil.which(tool) is None]
    if missing:
        return f"not installed: {', '.join(missing)}"
    if sys.version_info[:2] not in SUITES:
        return f"no Debian has Python {sys.version_info[0]}.{sys.version_info[1]}"
    return None


def debian(folder: Path) -> Path:
    """A minimal Debian with Python and pip, as the slim image of this Python is."""
    root = folder / "debian"
    packages = "python3,python3-venv,python3-pip,ca-certificates"
    suite = SUITES[sys.version_info[:2]]
    _run(["debootstrap", "--variant=minbase", f"--include={packages}", suite, str(root)])
    (root / "usr/local/bin/python").symlink_to("/usr/bin/python3")
    return root


@dataclass
class Image:
    """A root directory in layers, the lowest first, and what was said of it."""

    layers: list[Path]
    env: dict[str, str] = field(default_factory=lambda: {"PATH": PATH})
    folder: str = "/"
    user: str = "0:0"
    labels: dict[str, str] = field(default_factory=dict)
    volumes: list[str] = field(default_factory=list)
    probe: list[str] = field(default_factory=list)
    entrypoint: list[str] = field(default_factory=list)

    def derived(self, layer: Path) -> "Image":
        """An image on top of this one, its own layer empty."""
        layer.mkdir(parents=True)
        (layer.parent / f"{layer.name}.work").mkdir()
        return Image([*self.layers, layer], dict(self.env), self.folder, self.user)

    def path(self, inside: str) -> Path | None:
        """Where a file of the image is on this machine."""
        for layer in reversed(self.layers):
            if (layer / inside.lstrip("/")).exists():
                return layer / inside.lstrip("/")
        return None

    def mounted(self, at: Path, *, read_only: bool) -> str:
        """The command that mounts it."""
        *lower, top = self.layers
        if read_only:
            lower.append(top)
        options = f"lowerdir={':'.join(str(path) for path in reversed(lower))}"
        if not read_only:
            options += f",upperdir={top},workdir={top.parent / (top.name + '.work')}"
        return shlex.join(["mount", "-t", "overlay", "overlay", "-o", options, str(at)])


@dataclass(frozen=True)
class Container:
    """An image that runs; `pid` is its first process, seen from here."""

    process: "subprocess.Popen[bytes]"
    pid: int
    image: Image
    log: Path

    def inside(
        self, command: Sequence[str], *, text: str = ""
    ) -> "subprocess.CompletedProcess[str]":
        """Run a command in it as its user."""
        user, _, group = self.image.user.partition(":")
        enter = [
            "nsenter",
            f"--target={self.pid}",
            *("--mount", "--pid", "--net", "--root", "--wd"),
        ]
        enter += [f"--setuid={user}", f"--setgid={group}"]
        variables = [f"{key}={value}" for key, value in self.image.env.items()]
        return subprocess.run(
            [*enter, "/usr/bin/env", "-i", *variables, *command],
            input=text,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    def healthy(self) -> bool:
        """Whether the image's own health check says so."""
        return self.inside(self.image.probe).returncode == 0

    def wait_healthy(self, seconds: float = 120) -> None:
        """Wait as `docker compose up --wait` does."""
        ends = time.monotonic() + seconds
        while not self.healthy():
            assert self.process.poll() is None, self.said()
            assert time.monotonic() < ends, self.said()
            time.sleep(0.5)

    def stop(self) -> int:
        """SIGTERM to its first process; how it ended."""
        os.kill(self.pid, signal.SIGTERM)
        return self.process.wait(60)

    def said(self) -> str:
        """What it wrote."""
        return self.log.read_text(encoding="utf-8")


@contextmanager
def container(image: Image, folder: Path, env: dict[str, str]) -> Iterator[Container]:
    """Start an image's entry point until the block ends."""
    at, log = folder / "container", folder / "container.log"
    at.mkdir()
    user, _, group = image.user.partition(":")
    variables = {**image.env, **env}
    mounts = [image.mounted(at, read_only=True), "ip link set lo up"]
    mounts += [f"mount -t proc proc {at}/proc", f"mount --rbind /dev {at}/dev"]
    mounts += [
        f"mount -t tmpfs -o size=256m,mode=1777,noexec,nosuid,nodev tmpfs {at}{place}"
        for place in image.volumes
    ]
    lowered = ["setpriv", f"--reuid={user}", f"--regid={group}", "--clear-groups"]
    lowered += ["--no-new-privs", "--bounding-set=-all", "--inh-caps=-all"]
    start = ["chroot", str(at), "/usr/bin/env", "-i", "-C", image.folder]
    start += [f"{key}={value}" for key, value in variables.items()]
    script = " && ".join([*mounts, f"exec {shlex.join([*start, *lowered, *image.entrypoint])}"])
    with log.open("wb") as out:
        process = subprocess.Popen(
            [
                "unshare",
                "--mount",
                "--pid",
                "--net",
                "--ipc",
                "--uts",
                "--fork",
                "sh",
                "-c",
                script,
            ],
            stdout=out,
            stderr=out,
            stdin=subprocess.DEVNULL,
        )
        try:
            yield Container(process, _child(process), image, log)
        finally:
            if process.poll() is None:
                os.kill(_child(process), signal.SIGKILL)
                process.wait(30)
    at.rmdir()


def _child(process: "subprocess.Popen[bytes]") -> int:
    ends = time.monotonic() + 20
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    while time.monotonic() < ends:
        if found := children.read_text(encoding="ascii").split():
            return int(found[0])
        time.sleep(0.02)
    raise AssertionError("nothing was started")


def in_root(
    image: Image, command: str, folder: Path, binds: Sequence[tuple[Path, str]] = ()
) -> None:
    """Run a shell's command in an image as its builder does: as root, with this machine's network.

    `binds` are files and folders of this machine, and where they are seen inside.
    """
    at = folder / "root"
    at.mkdir(exist_ok=True)
    mounts = [image.mounted(at, read_only=False)]
    mounts += [f"mount -t proc proc {at}/proc", f"mount --rbind /dev {at}/dev"]
    for path, inside in [*((Path(path), path) for path in NETWORK), *binds]:
        if path.exists():
            target = f"{at}{inside}"
            make = f"mkdir -p {target}" if path.is_dir() else f"touch {target}"
            mounts.append(f"{make} && mount --bind {shlex.quote(str(path.resolve()))} {target}")
    own = {key: value for key, value in os.environ.items() if NETWORK_VARIABLES.search(key)}
    variables = [f"{key}={value}" for key, value in {**own, **image.env}.items()]
    start = ["chroot", str(at), "/usr/bin/env", "-i", "-C", image.folder, *variables]
    script = " && ".join([*mounts, shlex.join([*start, "/bin/sh", "-c", command])])
    _run(["unshare", "--mount", "--pid", "--fork", "sh", "-c", script])


def _run(command: Sequence[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, timeout=LONGEST, check=False)
    assert done.returncode == 0, f"{shlex.join(command)}\n{done.stdout}\n{done.stderr}"
