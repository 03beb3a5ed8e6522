#!/usr/bin/env python3
"""Prints the pods of rendered manifests as pods of their own. Usage: pods.py RENDERING"""
import sys

import yaml

with open(sys.argv[1], encoding="utf-8") as file:
    documents = [document for document in yaml.safe_load_all(file) if document]
pods = [{"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "of-a-deployment", "namespace": "outpost"},
         "spec": document["spec"]["template"]["spec"] | {"serviceAccountName": "default"}}
        for document in documents if document["kind"] == "Deployment"]
pods += [document for document in documents if document["kind"] == "Pod"]
# Admission would look for the class.
for pod in pods:
    pod["spec"].pop("priorityClassName", None)
print(yaml.safe_dump_all(pods))
