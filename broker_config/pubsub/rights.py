"""The least rights per role, as commands of Google's own tool.

Which method needs which permission, and what the predefined roles hold: Google Cloud
documentation, "Pub/Sub access control with IAM".
"""

from __future__ import annotations

from typing import Final

from ...wire.errors import ConfigurationError
from ..settings import BrokerSettings
from .names import Names

_ROLE: Final = "gcloud iam roles create ephemeralmlReplies --project={project} --permissions={permissions}"
_PROJECT: Final = "gcloud projects add-iam-policy-binding {project} --member={member} --role={role}"
_TOPIC: Final = (
    "gcloud pubsub topics add-iam-policy-binding {name} --project={project} --member={member} --role={role}"
)
_SUBSCRIPTION: Final = (
    "gcloud pubsub subscriptions add-iam-policy-binding {name} --project={project} "
    "--member={member} --role={role}"
)
_REPLIES: Final = (
    "pubsub.topics.create,pubsub.topics.delete,pubsub.topics.attachSubscription,"
    "pubsub.subscriptions.create,pubsub.subscriptions.delete,pubsub.subscriptions.consume"
)

_MEMBERS: Final = {
    "worker": "serviceAccount:WORKER",
    "client": "serviceAccount:CLIENT",
    "relay": "serviceAccount:RELAY",
    "operator": "user:OPERATOR",
}


def rights(settings: BrokerSettings, role: str) -> str:
    """Return the commands that give a role its rights, and nothing more; ``POOL`` stands for a pool.

    :raises ConfigurationError: ``UNKNOWN_ROLE``.
    """
    if role not in _MEMBERS:
        raise ConfigurationError("UNKNOWN_ROLE", f"the roles are {', '.join(_MEMBERS)}")
    names = Names.of(settings)
    project, member, jobs = names.project, _MEMBERS[role], f"{names.prefix}jobs.POOL"

    def line(form: str, role: str, name: str = "") -> str:
        return form.format(name=name, project=project, member=member, role=role)

    if role == "worker":
        lines = [
            line(_SUBSCRIPTION, "roles/pubsub.subscriber", jobs),
            "# Replies go to topics that clients make: name by name it cannot be granted in advance.",
            line(_PROJECT, "roles/pubsub.publisher"),
        ]
    elif role == "operator":
        lines = [line(_PROJECT, "roles/pubsub.editor")]
    else:
        lines = [
            line(_TOPIC, "roles/pubsub.publisher", jobs),
            "# Without EPHEMERALML_PUBSUB_CREATE_REPLIES, subscriber on its reply queue is enough instead.",
            _ROLE.format(project=project, permissions=_REPLIES),
            line(_PROJECT, f"projects/{project}/roles/ephemeralmlReplies"),
        ]
    return "\n".join(lines)
