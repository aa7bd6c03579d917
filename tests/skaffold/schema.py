"""The part of skaffold's schema (v4beta13) that skaffold.yaml makes use of.

A key that is not here is refused: it goes in when the configuration comes to need it. That skaffold
knows each of these keys is tested where its own schema is at hand.
"""

from __future__ import annotations

from typing import Any

VERSION = "skaffold/v4beta13"

Schema = dict[str, Any]

TEXT: Schema = {"type": "string", "minLength": 1}
FLAG: Schema = {"type": "boolean"}
PORT: Schema = {"type": "integer", "minimum": 1, "maximum": 65535}
TEMPLATES: Schema = {"type": "object", "minProperties": 1, "additionalProperties": TEXT}


def mapping(required: dict[str, Schema], **optional: Schema) -> Schema:
    return {
        "type": "object",
        "required": list(required),
        "properties": required | optional,
        "additionalProperties": False,
    }


def sequence(items: Schema) -> Schema:
    return {"type": "array", "items": items, "minItems": 1}


SYNC_RULE = mapping({"src": TEXT, "dest": TEXT}, strip=TEXT)
DOCKER = mapping({"dockerfile": TEXT}, target=TEXT)
ARTIFACT = mapping({"image": TEXT, "docker": DOCKER}, sync=mapping({"manual": sequence(SYNC_RULE)}))
BUILD = mapping(
    {"artifacts": sequence(ARTIFACT)},
    tagPolicy=mapping(
        {
            "gitCommit": mapping(
                {},
                prefix=TEXT,
                variant={
                    "enum": ["Tags", "CommitSha", "AbbrevCommitSha", "TreeSha", "AbbrevTreeSha"]
                },
            )
        }
    ),
    local=mapping({}, push=FLAG, useBuildkit=FLAG, concurrency={"type": "integer", "minimum": 0}),
)
RELEASE = mapping(
    {"name": TEXT, "chartPath": TEXT},
    createNamespace=FLAG,
    skipBuildDependencies=FLAG,
    valuesFiles=sequence(TEXT),
    setValueTemplates=TEMPLATES,
    setValues=TEMPLATES,
)
DEPLOY = mapping(
    {"helm": mapping({"releases": sequence(RELEASE)})},
    logs=mapping({"prefix": {"enum": ["container", "podAndContainer", "auto", "none"]}}),
)
PORT_FORWARD = sequence(
    mapping(
        {
            "resourceType": {"enum": ["service", "pod", "deployment", "daemonset"]},
            "resourceName": TEXT,
            "port": PORT,
        },
        localPort=PORT,
    )
)
ACTIVATION = mapping({}, command=TEXT, kubeContext=TEXT)
PATCH = mapping({"path": TEXT, "value": {}}, op={"enum": ["add", "replace"]})
PROFILE = mapping({"name": TEXT, "patches": sequence(PATCH)}, activation=sequence(ACTIVATION))
CONFIG = mapping(
    {
        "apiVersion": {"const": VERSION},
        "kind": {"const": "Config"},
        "build": BUILD,
        "deploy": DEPLOY,
    },
    metadata=mapping({"name": TEXT}),
    portForward=PORT_FORWARD,
    profiles=sequence(PROFILE),
)

DEFINITIONS = {
    "SkaffoldConfig": CONFIG,
    "BuildConfig": BUILD,
    "LocalBuild": BUILD["properties"]["local"],
    "GitTagger": BUILD["properties"]["tagPolicy"]["properties"]["gitCommit"],
    "Artifact": ARTIFACT,
    "DockerArtifact": DOCKER,
    "SyncRule": SYNC_RULE,
    "DeployConfig": DEPLOY,
    "HelmRelease": RELEASE,
    "PortForwardResource": PORT_FORWARD["items"],
    "Profile": PROFILE,
    "Activation": ACTIVATION,
    "JSONPatch": PATCH,
}
"""What skaffold's own schema calls them."""
