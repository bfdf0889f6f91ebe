"""Holds events against the schema of OCSF, with which PyPI's `ocsf-json-schema` comes, up to version 1.8.0.

What 1.9.0 adds and we use is a port of it, from ocsf/ocsf-schema: the profile `record_integrity`, the object
`attestation` with `prev_event`, and what `fingerprint` got. A version changes nothing that was there in one before.
"""

from functools import cache
from typing import cast

from jsonschema import Draft202012Validator  # type: ignore[import-untyped]
from ocsf_json_schema import OcsfJsonSchemaEmbedded, get_ocsf_schema

from sandboxd.sink.ocsf_kinds import VERSION

_HASH = {"enum": [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 99]}
_FINGERPRINT: dict[str, object] = {
    "type": "object",
    "additionalProperties": False,
    "required": ["algorithm_id", "value"],
    "properties": {
        "algorithm": {"type": "string"},
        "algorithm_id": {"type": "integer", **_HASH},
        "encoding": {"type": "string"},
        "encoding_id": {"type": "integer", "enum": [0, 1, 2, 3, 99]},
        "serialization": {"type": "string"},
        "serialization_id": {"type": "integer", "enum": [0, 1, 2, 3, 4, 5, 6, 7, 8, 99]},
        "value": {"type": "string"},
    },
}
ATTESTATION_LIST: dict[str, object] = {
    "type": "array",
    "items": {
        "type": "object",
        "additionalProperties": False,
        "anyOf": [{"required": ["fingerprint"]}, {"required": ["signatures"]}],
        "properties": {
            "authority_uid": {"type": "string"},
            "chain_uid": {"type": "string"},
            "fingerprint": _FINGERPRINT,
            "prev_event": {
                "type": "object",
                "additionalProperties": False,
                "required": ["uid"],
                "properties": {
                    "fingerprint": _FINGERPRINT,
                    "type_uid": {"type": "integer"},
                    "uid": {"type": "string"},
                },
            },
            "uid": {"type": "string"},
        },
    },
}


_schema = cache(get_ocsf_schema)


@cache
def _schemas() -> OcsfJsonSchemaEmbedded:
    return OcsfJsonSchemaEmbedded(_schema(version="1.8.0"))


@cache
def _validator(class_uid: int, profiles: tuple[str, ...]) -> Draft202012Validator:
    name = _schemas().lookup_class_name_from_uid(class_uid=class_uid)
    schema = _schemas().get_class_schema(class_name=name, profiles=list(profiles))
    return Draft202012Validator(schema)


def complaints(event: dict[str, object]) -> list[str]:
    """What in an event of ours, as parsed JSON, is against the schema."""
    metadata = cast("dict[str, object]", event["metadata"])
    added = {"attestation_list": ATTESTATION_LIST}
    profiles = cast("list[str]", metadata["profiles"])
    found = [] if metadata["version"] == VERSION and "record_integrity" in profiles else ["metadata: version, profiles"]
    for name, schema in added.items():
        found += [f"{name}: {error.message}" for error in Draft202012Validator(schema).iter_errors(event[name])]
    rest = {name: value for name, value in event.items() if name not in added}
    validator = _validator(
        cast("int", event["class_uid"]), tuple(name for name in profiles if name != "record_integrity")
    )
    found += [f"{error.json_path}: {error.message}" for error in validator.iter_errors(rest)]
    return found


def captions(class_uid: int, attribute: str) -> dict[int, str]:
    """Of an enumerated attribute of a class, what each number means."""
    name = _schemas().lookup_class_name_from_uid(class_uid=class_uid)
    enum = _schema(version="1.8.0")["classes"][name]["attributes"][attribute]["enum"]
    return {int(number): value["caption"] for number, value in enum.items()}
