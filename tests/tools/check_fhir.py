"""DocumentReferences, as the FHIR R4B models of fhir.resources read them (R4 and R4B have the same DocumentReference).

    check_fhir.py FILE...      says where one is wrong, never what it holds
"""

import base64
import hashlib
import json
import sys

from fhir.resources.R4B.documentreference import DocumentReference
from pydantic import BaseModel, ValidationError


def wrong_codes(model, at):
    """The models know the codes that FHIR requires and do not insist on them."""
    for name, field in type(model).model_fields.items():
        value, here = getattr(model, name), f"{at}.{name}"
        codes = (field.json_schema_extra or {}).get("enum_values")
        if codes and value is not None and value not in codes:
            yield f"{here}: not a code"
        for item in value if isinstance(value, list) else [value]:
            if isinstance(item, BaseModel):
                yield from wrong_codes(item, here)


def wrong_attachments(resource):
    for n, content in enumerate(resource["content"]):
        attachment = content["attachment"]
        data = base64.b64decode(attachment["data"], validate=True)
        if attachment["size"] != len(data):
            yield f"content.{n}: not its size"
        if base64.b64decode(attachment["hash"], validate=True) != hashlib.sha1(data).digest():
            yield f"content.{n}: not its SHA-1"


def faults(path):
    with open(path, encoding="utf-8") as file:
        resource = json.load(file)
    try:
        model = DocumentReference.model_validate(resource)
    except ValidationError as why:
        return [f"{'.'.join(map(str, error['loc']))}: {error['type']}" for error in why.errors(include_input=False)]
    return [*wrong_codes(model, "DocumentReference"), *wrong_attachments(resource)]


found = [f"{path}: {fault}" for path in sys.argv[1:] for fault in faults(path)]
print("\n".join(found))
sys.exit(bool(found))
