#!/usr/bin/env python3
"""Makes JSON schemas for kubeconform of an API server's own OpenAPI document.

Usage: schemas.py OPENAPI_V2 FOLDER

Unknown fields are refused: every object that names its fields permits no others. Definitions of our own resource come
along, since the API server publishes them too.
"""
import json
import os
import sys


def strict(schema):
    """The schema, adapted: OpenAPI 2 says less than what the API server takes."""
    if isinstance(schema, list):
        return [strict(one) for one in schema]
    if not isinstance(schema, dict):
        return schema
    # A map of fields is no schema itself: a field may be called as a keyword is.
    schema = {key: {name: strict(field) for name, field in value.items()} if key == "properties" else strict(value)
              for key, value in schema.items()}
    if schema.get("format") == "int-or-string" or schema.get("x-kubernetes-int-or-string"):
        schema.pop("format", None)
        schema["type"] = ["integer", "string"]
    if isinstance(schema.get("properties"), dict) and "additionalProperties" not in schema \
            and not schema.get("x-kubernetes-preserve-unknown-fields"):
        schema["additionalProperties"] = False
    return schema


def main():
    with open(sys.argv[1], encoding="utf-8") as file:
        definitions = json.load(file)["definitions"]
    for name, definition in definitions.items():
        # A quantity may be a number too.
        if name.endswith(".resource.Quantity"):
            definition["type"] = ["string", "number"]
    everything = {name: strict(definition) for name, definition in definitions.items()}
    os.makedirs(sys.argv[2], exist_ok=True)
    written = 0
    for name, definition in definitions.items():
        for kind in definition.get("x-kubernetes-group-version-kind", []):
            if "properties" not in definition:
                continue
            needed = closure(everything, name)
            schema = {"$ref": f"#/definitions/{name}", "definitions": needed}
            version = "-".join(filter(None, (kind["group"].split(".")[0], kind["version"])))
            path = os.path.join(sys.argv[2], f"{kind['kind'].lower()}-{version}.json")
            with open(path, "w", encoding="utf-8") as out:
                json.dump(schema, out)
            written += 1
    print(f"schemas: {written} kinds", file=sys.stderr)


def closure(definitions, name):
    """The definitions that one needs."""
    found, todo = {}, [name]
    while todo:
        current = todo.pop()
        if current in found:
            continue
        found[current] = definitions[current]
        text = json.dumps(found[current])
        todo += [part.split('"', 1)[0] for part in text.split('"#/definitions/')[1:]]
    return found


main()
