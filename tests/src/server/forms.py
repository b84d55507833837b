"""Checks documents against the schemas that their standards publish: forms.py sarif|cbom FILE SARIF_SCHEMA. Prints what is wrong."""
import json
import os
import sys

import cyclonedx.schema
import jsonschema
import referencing
import referencing.jsonschema

WHAT, FILE, SARIF = sys.argv[1:4]
FOLDER = os.path.join(os.path.dirname(cyclonedx.schema.__file__), "_res")


def load(path):
    with open(path, encoding="utf-8") as file:
        return json.load(file)


if WHAT == "sarif":
    validator = jsonschema.Draft4Validator(load(SARIF), format_checker=jsonschema.FormatChecker())
else:
    registry = referencing.Registry()
    for name in ("spdx", "jsf-0.82", "cryptography-defs"):
        schema = load(f"{FOLDER}/{name}.SNAPSHOT.schema.json")
        resource = referencing.Resource.from_contents(schema)
        registry = registry.with_resource(schema["$id"], resource)
    schema = load(f"{FOLDER}/bom-1.7.SNAPSHOT.schema.json")
    validator = jsonschema.Draft7Validator(schema, registry=registry)

document = load(FILE)
errors = sorted(validator.iter_errors(document), key=lambda error: error.json_path)
for error in errors:
    print(f"{error.json_path}: {error.message[:300]}")
sys.exit(1 if errors else 0)
