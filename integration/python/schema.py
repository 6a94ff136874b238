"""Checks YAML files against a JSON Schema, as an editor does: schema.py SCHEMA FILE..."""

import json
import sys

import jsonschema
import yaml



class Loader(yaml.SafeLoader):
    """YAML 1.2, as editors and we read it: `on`, `off`, `yes` and `no` are words."""


Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:bool" or first in "tTfF"]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}

with open(sys.argv[1]) as file:
    schema = json.load(file)
validator = jsonschema.validators.validator_for(schema, default=None)
assert validator is not None, "the schema does not say which draft it is"
validator.check_schema(schema)

bad = 0
for name in sys.argv[2:]:
    with open(name) as file:
        document = yaml.load(file, Loader)
    for error in validator(schema).iter_errors(document):
        bad += 1
        print(f"{name}: {error.json_path}: {error.message}")
sys.exit(1 if bad else 0)
