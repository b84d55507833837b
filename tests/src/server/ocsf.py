"""Checks lines of OCSF against the schema they name: ocsf.py FILE. Prints what is wrong and how many of each class there were."""
import collections
import glob
import json
import os
import sys

import jsonschema
import ocsf_json_schema
from ocsf_json_schema import OcsfJsonSchemaEmbedded

folder = os.path.dirname(ocsf_json_schema.__file__)
schemas, validators, classes, wrong = {}, {}, collections.Counter(), 0
for number, line in enumerate(open(sys.argv[1], encoding="utf-8"), 1):
    event = json.loads(line)
    version = event["metadata"]["version"]
    if version not in schemas:
        with open(glob.glob(f"{folder}/ocsf/{version}.json")[0], encoding="utf-8") as file:
            schemas[version] = OcsfJsonSchemaEmbedded(json.load(file))
    uid, profiles = event["class_uid"], event["metadata"].get("profiles", [])
    key = (version, uid, *profiles)
    if key not in validators:
        name = schemas[version].lookup_class_name_from_uid(uid)
        schema = schemas[version].get_class_schema(name, profiles)
        validators[key] = jsonschema.Draft202012Validator(schema)
    classes[uid] += 1
    if event["type_uid"] != uid * 100 + event["activity_id"] or event["category_uid"] != uid // 1000:
        wrong += 1
        print(f"line {number}: type_uid or category_uid does not fit", file=sys.stderr)
    for error in validators[key].iter_errors(event):
        wrong += 1
        print(f"line {number}, class {uid}: {error.json_path}: {error.message[:300]}", file=sys.stderr)
print(*(f"{uid}={count}" for uid, count in sorted(classes.items())))
sys.exit(1 if wrong else 0)
