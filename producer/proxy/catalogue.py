"""Which model is run by which pool: the models' own ids, the pools' names, and aliases."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ...wire.job import Task
from ..session import Session
from ..trust import VerifiedFleet
from .errors import ApiError


@dataclass(frozen=True)
class Catalogue:
    """Finds pools by the names of models; what pools run is asked of the session each time.

    :param aliases: pool by name.
    """

    session: Session
    aliases: dict[str, str]

    def pool(self, model: str, task: Task) -> str:
        """Return the pool that runs a model.

        :raises ApiError: 404 ``model_not_found``; 400 where it does not do the task.
        """
        pool = self._names().get(model)
        if pool is None:
            raise model_not_found()
        if task not in tasks_of(self.session.known(pool)):
            what = "embeddings" if task == "embed" else "chat completions"
            raise ApiError(400, f"The model does not do {what}.", param="model", code="unsupported_model")
        return pool

    def models(self) -> list[dict[str, Any]]:
        """Return all names as OpenAI lists models."""
        return [self._entry(name, pool) for name, pool in self._names().items()]

    def model(self, name: str) -> dict[str, Any]:
        """Return one name's entry.

        :raises ApiError: 404 ``model_not_found``.
        """
        pool = self._names().get(name)
        if pool is None:
            raise model_not_found()
        return self._entry(name, pool)

    def _names(self) -> dict[str, str]:
        """Return pools by name; an alias counts before a model's id, that before a pool's name."""
        names = dict(self.aliases)
        for pool in self.session.pools:
            names.setdefault(self.session.known(pool).model.id, pool)
        for pool in self.session.pools:
            names.setdefault(pool, pool)
        return names

    def _entry(self, name: str, pool: str) -> dict[str, Any]:
        fleet = self.session.known(pool)
        about = {
            "pool": pool,
            "model": fleet.model.id,
            "version": fleet.model.version,
            "manifest_sha256": fleet.model.manifest_hash.hex(),
            "tasks": sorted(tasks_of(fleet)),
        }
        created = min(worker.body.issued_at for worker in fleet.workers.values())
        return {
            "id": name,
            "object": "model",
            "created": created,
            "owned_by": "ephemeralml",
            "ephemeralml": about,
        }


def tasks_of(fleet: VerifiedFleet) -> set[Task]:
    """Return the tasks that workers of a fleet do."""
    return {task for worker in fleet.workers.values() for task in worker.body.tasks}


def model_not_found() -> ApiError:
    """Return OpenAI's answer to an unknown model; it does not repeat the name."""
    message = "The model does not exist here; GET /v1/models lists those that do."
    return ApiError(404, message, param="model", code="model_not_found")
