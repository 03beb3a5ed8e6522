#!/usr/bin/env python3
"""Checks that the chart says what other files say. Usage: consistency.py ROOT RENDERED"""
import os
import re
import sys

import yaml

root, rendered = sys.argv[1:]


def documents(path):
    with open(path, encoding="utf-8") as file:
        return [document for document in yaml.safe_load_all(file) if document]


def one(path, kind, name=None):
    found = [document for document in documents(path) if document["kind"] == kind
             and name in (None, document["metadata"]["name"])]
    assert len(found) == 1, f"{path}: {len(found)} of {kind} {name}"
    return found[0]


def text(path):
    with open(os.path.join(root, path), encoding="utf-8") as file:
        return file.read()


problems = []


def same(what, expected, actual):
    if expected != actual:
        problems.append(f"{what}: expected {expected}, got {actual}")


crds = os.path.join(root, "crds/redismigrations.yaml")
same("the rendered definition", one(crds, "CustomResourceDefinition")["spec"],
     one(rendered, "CustomResourceDefinition")["spec"])
rbac = os.path.join(root, "deploy/rbac.yaml")
same("rules of deploy/rbac.yaml", one(rendered, "Role")["rules"], one(rbac, "Role")["rules"])
chart = yaml.safe_load(text("charts/outpost-migrate-redis/Chart.yaml"))
same("appVersion", re.search(r'^version = "(.*)"', text("Cargo.toml"), re.M)[1], chart["appVersion"])

# Every reason of the operator is in a test of Argo CD's health, and every trouble in an alert.
conditions = text("src/api/conditions.rs")
standing = conditions[conditions.index("pub fn standing"):]
groups = dict(zip(("Reconciling", "Stalled", "Waiting", "Ready"), standing.split("=> Standing::")))
reasons = {group: re.findall(r"Self::(\w+)", part) for group, part in groups.items()}
assert sum(map(len, reasons.values())) >= 26, reasons
health = text("tests/chart/health_test.lua")
rules = text("charts/outpost-migrate-redis/templates/prometheusrule.yaml")
dashboard = text("charts/outpost-migrate-redis/files/dashboard.json")
for group, argo in (("Reconciling", "Progressing"), ("Stalled", "Degraded"), ("Waiting", "Suspended"),
                    ("Ready", "Healthy")):
    table = re.search(r"^  %s = \{(.*?)\}" % argo, health, re.M | re.S)[1]
    same(f"reasons in health_test.lua, {argo}", sorted(reasons[group]), sorted(re.findall(r"(\w+) = 1", table)))
stalled = re.search(r'outpost_migrate_reason\{reason=~"(InvalidSpec[^"]*)"', rules)[1]
same("the alert OutpostMigrateStalled", sorted(reasons["Stalled"]), sorted(stalled.split("|")))
same("the dashboard's stalled migrations", True, stalled in dashboard)
# Progressing and LockHeld have alerts of their own; the others wait as they should.
failing = re.search(r'outpost_migrate_reason\{reason=~"(SecretMissing[^"]*)"', rules)[1].split("|")
same("the alert OutpostMigrateFailing", sorted(set(reasons["Reconciling"]) - {
    "Progressing", "LockHeld", "PredecessorPending", "Soaking"}), sorted(failing))

if problems:
    sys.exit("\n".join(problems))
print("consistency: definition, permissions, version and reasons are the same everywhere")
