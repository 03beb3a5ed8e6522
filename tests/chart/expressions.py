#!/usr/bin/env python3
"""Writes the alerts, and the dashboard's queries as recording rules, for promtool; and checks that they name no metric
that the operator has not.

Usage: expressions.py ROOT RENDERED-FOLDER FOLDER
"""
import json
import os
import re
import subprocess
import sys

import yaml

root, rendered, folder = sys.argv[1:]
chart = os.path.join(root, "charts/outpost-migrate-redis")


def rules():
    done = subprocess.run(
        ["helm", "template", "outpost-migrate-redis", chart, "--namespace", "outpost", "--set",
         "metrics.prometheusRule.enabled=true", "--show-only", "templates/prometheusrule.yaml"],
        capture_output=True, text=True, check=True)
    return yaml.safe_load(done.stdout)["spec"]


def queries():
    with open(os.path.join(chart, "files/dashboard.json"), encoding="utf-8") as file:
        board = json.load(file)
    for panel in board["panels"]:
        for target in panel["targets"]:
            yield panel["title"], target["expr"]


def metrics():
    """The names that the operator's own test holds them to."""
    with open(os.path.join(root, "src/operator/metrics.rs"), encoding="utf-8") as file:
        test = file.read().split("mod tests")[1]
    names = set(re.findall(r'"(outpost_migrate_\w+)', test))
    # A histogram has more series than the one that the test looks at.
    stem = "outpost_migrate_reconcile_duration_seconds"
    return names | {f"{stem}_{part}" for part in ("bucket", "sum", "count")}


alerts = rules()
board = []
for number, (title, expression) in enumerate(queries()):
    # What Grafana puts in.
    expression = expression.replace("$__rate_interval", "5m").replace("$namespace", ".+").replace("$name", ".+")
    board.append({"record": f"dashboard:query:{number}", "expr": expression})
with open(os.path.join(folder, "rules.yaml"), "w", encoding="utf-8") as out:
    yaml.safe_dump(alerts, out)
with open(os.path.join(folder, "dashboard.yaml"), "w", encoding="utf-8") as out:
    yaml.safe_dump({"groups": [{"name": "dashboard", "rules": board}]}, out)
used = set(re.findall(r"outpost_migrate_\w+", json.dumps([alerts["groups"][0]["rules"], board])))
unknown = used - metrics()
if unknown:
    sys.exit(f"the operator has no {', '.join(sorted(unknown))}")
unused = {name for name in metrics() if "reconcile" not in name} - used
if unused:
    sys.exit(f"neither alerts nor dashboard show {', '.join(sorted(unused))}")
print(f"expressions: {len(alerts['groups'][0]['rules'])} alerts and {len(board)} queries use the operator's metrics")
