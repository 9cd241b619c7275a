"""The fields of KEDA's objects that we use, and nothing else.

Sources: keda.sh, "ScaledObject specification", "ScaledJob specification", "Authentication"; the triggers' own
pages "Redis Lists", "AWS SQS Queue", "Prometheus". Checked by hand against the CRDs of KEDA 2.20.2.
"""

from __future__ import annotations

from typing import Any, Final

Schema = dict[str, Any]


def closed(required: dict[str, Schema], **optional: Schema) -> Schema:
    """Return the schema of an object without other fields."""
    return {
        "type": "object",
        "required": sorted(required),
        "properties": {**required, **optional},
        "additionalProperties": False,
    }


NAME: Final[Schema] = {"type": "string", "pattern": "^[a-z][a-z0-9-]*$"}
#: KEDA reads numbers and booleans of a trigger from strings.
NUMBER: Final[Schema] = {"type": "string", "pattern": "^[0-9]+$"}
BOOLEAN: Final[Schema] = {"enum": ["true", "false"]}
COUNT: Final[Schema] = {"type": "integer", "minimum": 0, "maximum": 100_000}
METADATA: Final = closed({"name": NAME, "namespace": NAME}, labels={"type": "object"})


def trigger(kind: str, metadata: Schema) -> Schema:
    """Return the schema of a trigger."""
    wanted = {"type": {"const": kind}, "name": NAME, "metadata": metadata}
    return closed({**wanted, "authenticationRef": closed({"name": NAME})})


REDIS: Final = closed(
    {
        "address": {"type": "string", "pattern": r"^[a-z0-9.-]+:[0-9]+$"},
        "listName": {"type": "string", "minLength": 1},
        "listLength": NUMBER,
        "enableTLS": BOOLEAN,
    }
)
SQS: Final = closed(
    {
        "queueURL": {"type": "string", "pattern": "^https://"},
        "awsRegion": {"type": "string", "pattern": "^[a-z]+-[a-z]+-[0-9]$"},
        "queueLength": NUMBER,
        "scaleOnInFlight": BOOLEAN,
    }
)
PROMETHEUS: Final = closed(
    {
        "serverAddress": {"type": "string", "pattern": "^https://"},
        "query": {"type": "string", "minLength": 1},
        "threshold": NUMBER,
        "activationThreshold": NUMBER,
        "ignoreNullValues": BOOLEAN,
    }
)
TRIGGERS: Final[Schema] = {
    "type": "array",
    "minItems": 1,
    "items": {
        "oneOf": [
            trigger("redis", REDIS),
            trigger("aws-sqs-queue", SQS),
            trigger("prometheus", PROMETHEUS),
        ]
    },
}
POLICIES: Final = closed(
    {
        "stabilizationWindowSeconds": COUNT,
        "selectPolicy": {"enum": ["Max", "Min", "Disabled"]},
        "policies": {
            "type": "array",
            "minItems": 1,
            "items": closed(
                {"type": {"enum": ["Percent", "Pods"]}, "value": COUNT, "periodSeconds": COUNT},
            ),
        },
    }
)
MODIFIERS: Final = closed(
    {
        "formula": {"type": "string"},
        "target": NUMBER,
        "activationTarget": NUMBER,
        "metricType": {"enum": ["AverageValue", "Value"]},
    }
)
SCALING: Final = closed({"behavior": closed({"scaleUp": POLICIES, "scaleDown": POLICIES})})
ADVANCED: Final = closed({"horizontalPodAutoscalerConfig": SCALING}, scalingModifiers=MODIFIERS)
_VERSION: Final[Schema] = {"const": "keda.sh/v1alpha1"}
SCHEMAS: Final[dict[str, Schema]] = {
    "ScaledObject": closed(
        {
            "apiVersion": _VERSION,
            "kind": {"const": "ScaledObject"},
            "metadata": METADATA,
            "spec": closed(
                {
                    "scaleTargetRef": closed({"apiVersion": {"const": "apps/v1"}, "kind": {"type": "string"},
                                              "name": NAME}),
                    "pollingInterval": COUNT,
                    "cooldownPeriod": COUNT,
                    "minReplicaCount": COUNT,
                    "maxReplicaCount": COUNT,
                    "advanced": ADVANCED,
                    "triggers": TRIGGERS,
                }
            ),
        }
    ),
    "ScaledJob": closed(
        {
            "apiVersion": _VERSION,
            "kind": {"const": "ScaledJob"},
            "metadata": METADATA,
            "spec": closed(
                {
                    "pollingInterval": COUNT,
                    "maxReplicaCount": COUNT,
                    "successfulJobsHistoryLimit": COUNT,
                    "failedJobsHistoryLimit": COUNT,
                    "rollout": closed({"strategy": {"enum": ["default", "gradual"]}}),
                    "scalingStrategy": closed({"strategy": {"enum": ["default", "accurate", "eager"]}}),
                    "triggers": TRIGGERS,
                    "jobTargetRef": {"type": "object"},  # a Job's spec, judged as one
                }
            ),
        }
    ),
    "TriggerAuthentication": closed(
        {
            "apiVersion": _VERSION,
            "kind": {"const": "TriggerAuthentication"},
            "metadata": METADATA,
            "spec": {
                "oneOf": [
                    closed({"podIdentity": closed({"provider": {"enum": ["aws", "gcp"]}})}),
                    closed(
                        {
                            "secretTargetRef": {
                                "type": "array",
                                "minItems": 1,
                                "items": closed({"parameter": NAME, "name": NAME, "key": NAME}),
                            }
                        }
                    ),
                ]
            },
        }
    ),
}  # fmt: skip
