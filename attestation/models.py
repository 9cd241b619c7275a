"""Is this one of the models that a policy wants?"""

from __future__ import annotations

from ..wire.announcement import ModelIdentity
from ..wire.errors import AppraisalError
from .policy import TrustPolicy


def check_model(model: ModelIdentity, policy: TrustPolicy) -> None:
    """Refuse a model that a policy does not name with this manifest.

    :raises AppraisalError: ``MODEL_NOT_ALLOWED``.
    """
    wanted = {(entry.id, bytes.fromhex(entry.manifest_hash)) for entry in policy.models}
    if (model.id, model.manifest_hash) not in wanted:
        raise AppraisalError("MODEL_NOT_ALLOWED", "the policy does not name this model and manifest")
