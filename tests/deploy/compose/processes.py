"""Services of docker-compose.yml as plain processes: commands and settings are the file's own.

What a container has and a process has not is replaced by this table, and nothing else:

==========================  =====================================================
in a container              here
==========================  =====================================================
a volume at its target      a folder of that volume's name
``./path`` at its target    the file in this checkout
``/tmp``                    a folder of the service's own
host names of services      127.0.0.1
``0.0.0.0``                 127.0.0.1
ports                       free ports
``/proc/1``                 the process's own number
PostgreSQL's entry point    initdb by the same variables (:func:`init_postgres`)
==========================  =====================================================
"""

from __future__ import annotations

import functools
import os
import pwd
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import yaml

from ...gateway.process import free_port
from ...servers import postgres

ROOT: Final = Path(__file__).resolve().parents[3]
FILE: Final = ROOT / "docker-compose.yml"
PORTS: Final = ("6379", "5432", "8420", "9090", "5555", "5000", "9108", "9109", "9110", "9111")
PATIENCE_S: Final = 90.0
#: A path begins where no other one goes on; URLs hold paths too.
_BEGINS: Final = r"(?:(?<![\w./-])|(?<=://))"


@functools.cache
def services() -> dict[str, dict[str, Any]]:
    """Return the file's services, merged as YAML says."""
    found: dict[str, dict[str, Any]] = yaml.safe_load(FILE.read_text())["services"]
    return found


def needs(service: dict[str, Any]) -> dict[str, str]:
    """Return the services that must be there first, and in which condition."""
    return {name: value["condition"] for name, value in service.get("depends_on", {}).items()}


def in_order(wanted: list[str]) -> list[str]:
    """Return services and all that they need, each after what it needs."""
    found: list[str] = []

    def visit(name: str) -> None:
        for one in needs(services()[name]):
            visit(one)
        if name not in found:
            found.append(name)

    for name in wanted:
        visit(name)
    return found


def mounts(service: dict[str, Any]) -> dict[str, str]:
    """Return what lies at each path: a volume's name, or ``./path``."""
    found = {}
    for mount in service.get("volumes", []):
        if isinstance(mount, dict):
            found[mount["target"]] = mount["source"]
        else:
            source, target = mount.split(":")[:2]
            found[target] = source
    return found


@dataclass
class Machine:
    """Runs services as processes in one folder."""

    folder: Path
    ports: dict[str, str] = field(default_factory=lambda: {port: str(free_port()) for port in PORTS})
    running: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)
    ended: dict[str, int] = field(default_factory=dict)

    def volume(self, name: str) -> Path:
        """Return the folder of a volume."""
        path = self.folder / "volumes" / name
        path.mkdir(parents=True, exist_ok=True)
        return path

    def here(self, name: str, text: str) -> str:
        """Return a text of a service as it must be on this machine."""
        table = {target: self._source(source) for target, source in mounts(services()[name]).items()}
        own = self.folder / name / "tmp"
        own.mkdir(parents=True, exist_ok=True)
        table["/tmp"] = str(own)  # noqa: S108 - the container's
        if name == "setup":
            table["/volumes"] = str(self.folder / name / "volumes")
        if name in self.running:
            table["/proc/1"] = f"/proc/{self.running[name].pid}"
        wanted = "|".join(re.escape(target) for target in sorted(table, key=len, reverse=True))
        text = re.sub(f"{_BEGINS}({wanted})(?![\\w-])", lambda match: table[match[1]], text)
        text = re.sub(r"\b(redis|postgres|pod):(?=\d)", "127.0.0.1:", text)
        text = text.replace("0.0.0.0", "127.0.0.1")  # noqa: S104 - the container's
        text = re.sub(r"\b(" + "|".join(PORTS) + r")\b", lambda match: self.ports[match[1]], text)
        return text.replace("$$", "$")

    def _source(self, source: str) -> str:
        if not source.startswith("./"):
            return str(self.volume(source))
        file = ROOT / source
        if file.name != "prometheus.yml":
            return str(file)
        copy = self.folder / file.name
        if not copy.exists():
            copy.touch()  # its own text asks for this path no more
            copy.write_text(self.here("prometheus", file.read_text()))
        return str(copy)

    def environment(self, name: str) -> dict[str, str]:
        """Return a service's environment: the file's, and what an image has."""
        path = os.pathsep.join([str(self._programs()), *_server_folders(), os.environ["PATH"]])
        given = {
            key: self.here(name, value) for key, value in services()[name].get("environment", {}).items()
        }
        home = self.folder / name / "home"
        home.mkdir(parents=True, exist_ok=True)
        return {"PATH": path, "HOME": str(home), "LANG": "C.UTF-8", "PYTHONDONTWRITEBYTECODE": "1", **given}

    def _programs(self) -> Path:
        """Return a folder of our images' programs; the servers of other images are this machine's."""
        folder = self.folder / "bin"
        if not folder.exists():
            folder.mkdir()
            for name in ("python3", "ephemeralml", "celery"):
                script = folder / name
                script.write_text(f'#!/bin/sh\nexec {Path(sys.executable).parent / name} "$@"\n')
                script.chmod(0o755)
        return folder

    def program(self, name: str, binary: Path) -> None:
        """Put a program of another image where services find it."""
        (self._programs() / name).symlink_to(binary)

    def command(self, name: str) -> list[str]:
        """Return a service's command line."""
        service = services()[name]
        words = [*service.get("entrypoint", []), *service["command"]]
        return [self.here(name, word) for word in words]

    def up(self, *wanted: str) -> None:
        """Start services in the file's order, each when what it needs is as it must be."""
        for name in in_order(list(wanted)):
            if name in self.running or name in self.ended:
                continue
            for other, condition in needs(services()[name]).items():
                self.wait(other, condition)
            self.start(name)
        for name in wanted:
            if "healthcheck" in services()[name]:
                self.wait(name, "service_healthy")

    def start(self, name: str) -> None:
        """Start one service."""
        command = self.command(name)
        if name == "setup":
            self._prepare(command[2])
        if name == "postgres":
            command = init_postgres(self, command)
        with (self.folder / f"{name}.log").open("wb") as log:
            self.running[name] = subprocess.Popen(
                command,
                env=self.environment(name),
                cwd=self.here(name, services()[name].get("working_dir", "/tmp")),  # noqa: S108
                stdin=subprocess.PIPE if services()[name].get("stdin_open") else subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )

    def _prepare(self, volumes: str) -> None:
        """Give the setup's folder of volumes those that the file mounts there."""
        Path(volumes).mkdir(parents=True, exist_ok=True)
        for target, source in mounts(services()["setup"]).items():
            if target.startswith("/volumes/"):
                (Path(volumes) / target.removeprefix("/volumes/")).symlink_to(self.volume(source))

    def wait(self, name: str, condition: str) -> None:
        """Wait until a service is as another needs it."""
        deadline, pause = time.monotonic() + PATIENCE_S, 0.1
        process = self.running.get(name)
        while time.monotonic() < deadline:
            if condition == "service_completed_successfully":
                if name in self.ended:
                    return
                assert process is not None
                code = process.poll()
                if code is not None:
                    assert code == 0, self.log(name)
                    self.ended[name] = self.running.pop(name).returncode
                    self._completed(name)
                    return
            else:
                assert process is not None, name
                assert process.poll() is None, f"{name} ended: {self.log(name)}"
                if condition == "service_started" or self.healthy(name):
                    return
            time.sleep(pause)
            pause = min(pause * 1.5, 1)  # each look is a process
        raise AssertionError(f"{name} is not {condition}: {self.log(name)}")

    def _completed(self, name: str) -> None:
        """In containers both volumes lie at ``/lab``: what setup wrote of one is so for the other."""
        if name == "setup":
            file = self.volume("worker") / "lab.env"
            file.write_text(file.read_text().replace(str(self.volume("lab")), str(self.volume("worker"))))

    def healthy(self, name: str) -> bool:
        """Run a service's own health check."""
        kind, *words = services()[name]["healthcheck"]["test"]
        words = [self.here(name, word) for word in words]
        command = ["sh", "-c", *words] if kind == "CMD-SHELL" else words
        done = subprocess.run(
            command, env=self.environment(name), capture_output=True, timeout=30, check=False
        )
        return done.returncode == 0

    def run(self, name: str, *command: str) -> subprocess.CompletedProcess[str]:
        """Run a command as ``docker-compose run`` does: with a service's settings and its entry point."""
        words = [*services()[name].get("entrypoint", []), *command]
        return subprocess.run(
            [self.here(name, word) for word in words],
            env=self.environment(name),
            cwd=self.here(name, services()[name].get("working_dir", "/tmp")),  # noqa: S108
            capture_output=True,
            text=True,
            timeout=PATIENCE_S,
            check=False,
        )

    def log(self, name: str) -> str:
        """Return what a service wrote."""
        return (self.folder / f"{name}.log").read_text()

    def down(self) -> dict[str, int]:
        """Stop all, each when nobody needs it any more; return exit codes."""
        codes: dict[str, int] = {}
        while self.running:
            needed = {other for name in self.running for other in needs(services()[name])}
            leaving = [name for name in self.running if name not in needed]
            for name in leaving:
                process = self.running[name]
                if process.poll() is None:
                    process.send_signal(signal.SIGTERM)
                if process.stdin is not None:
                    process.stdin.close()
            for name in leaving:
                codes[name] = _end(self.running.pop(name))
        return codes


def _end(process: subprocess.Popen[bytes]) -> int:
    try:
        return process.wait(PATIENCE_S)
    except subprocess.TimeoutExpired:
        process.kill()
        return process.wait()


def _server_folders() -> list[str]:
    programs = postgres.binaries()
    return [] if programs is None else [str(programs)]


def init_postgres(machine: Machine, command: list[str]) -> list[str]:
    """Do what the entry point of PostgreSQL's image does with its variables; return the command to run.

    Source: docker-library/postgres, ``docker-entrypoint.sh``: initdb with POSTGRES_INITDB_ARGS and a password
    file, then the database POSTGRES_DB. PostgreSQL refuses to run as root, so another user does it here.
    """
    settings = machine.environment("postgres")
    data, sockets = Path(settings["PGDATA"]), machine.folder / "sockets"
    password = machine.folder / "initdb-password"
    shutil.copy(settings["POSTGRES_PASSWORD_FILE"], password)
    sockets.mkdir()
    user: list[str] = []
    if os.geteuid() == 0:
        entry = next((one for one in pwd.getpwall() if one.pw_name == "postgres"), pwd.getpwnam("nobody"))
        user = ["setpriv", f"--reuid={entry.pw_uid}", f"--regid={entry.pw_gid}", "--clear-groups"]
        for path in (data.parent, sockets, password):
            os.chown(path, entry.pw_uid, entry.pw_gid)
    made = [*user, "initdb", "-D", str(data), f"--username={settings['POSTGRES_USER']}", "--no-sync"]
    made += [f"--pwfile={password}", *shlex.split(settings["POSTGRES_INITDB_ARGS"])]
    subprocess.run(made, env=settings, check=True, capture_output=True, cwd="/")
    subprocess.run(
        [*user, "postgres", "--single", "-D", str(data), "postgres"],
        env=settings,
        input=f"CREATE DATABASE {settings['POSTGRES_DB']}\n".encode(),
        check=True,
        capture_output=True,
        cwd="/",
    )
    password.unlink()
    return [*user, *command, "-D", str(data), "-k", str(sockets), "-c", "fsync=off"]
