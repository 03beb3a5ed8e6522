#!/usr/bin/env python3
"""Holds values.yaml, values.schema.json and the templates of the chart against each other.

Usage: values.py CHART VALUES     (VALUES switches everything on)

For every value of values.yaml:
- another value changes what is rendered: some template reads it;
- a value of another type is refused by the schema;
- beside it, a value of an unknown name is refused, unless it is a map of the user's.
"""
import concurrent.futures
import json
import os
import subprocess
import sys
import tempfile

import yaml

# Maps whose keys are the user's, or Kubernetes' own: the API server knows them better than we.
FREE_MAPS = {
    "commonLabels", "podLabels", "podAnnotations", "deploymentAnnotations", "serviceAccount.annotations",
    "nodeSelector", "affinity", "podSecurityContext", "securityContext", "resources.requests", "resources.limits",
    "metrics.service.annotations", "metrics.dashboard.annotations", "metrics.dashboard.labels",
} | {f"metrics.{kind}.{what}" for kind in ("serviceMonitor", "prometheusRule") for what in ("labels", "annotations")}
FREE_MAPS.add("metrics.prometheusRule.alertLabels")

# Another valid value, where one can't be made by the type alone.
OTHERS = {
    "watchNamespaces": ["elsewhere"],
    "updateStrategy.type": "Recreate",
    "updateStrategy.rollingUpdate.maxUnavailable": "25%",
    "updateStrategy.rollingUpdate.maxSurge": 2,
    "image.digest": "sha256:" + "f" * 64,
    "image.pullPolicy": "Never",
    "log.format": "text",
    "imagePullSecrets": [{"name": "other"}],
    "extraArgs": ["--other"],
    "extraEnv": [{"name": "OTHER", "value": "x"}],
    "allowedRedisHosts": ["other.example.com"],
    "networkPolicy.apiServerPorts": [8443],
    "networkPolicy.redisPorts": [7000],
    "podDisruptionBudget.maxUnavailable": 2,
}
# What must not be there for the value to count at all.
ONLY_WITHOUT = {"image.tag": {"image.digest": ""}, "nameOverride": {"fullnameOverride": ""}}


def leaves(values, path=""):
    for key, value in values.items():
        here = f"{path}.{key}" if path else key
        if isinstance(value, dict) and value and here not in FREE_MAPS:
            yield from leaves(value, here)
        else:
            yield here, value


def maps(values, path=""):
    yield path
    for key, value in values.items():
        here = f"{path}.{key}" if path else key
        if isinstance(value, dict) and value and here not in FREE_MAPS:
            yield from maps(value, here)


def at(values, path):
    for key in path.split("."):
        if not isinstance(values, dict) or key not in values:
            return None
        values = values[key]
    return values


def nest(path, value):
    for key in reversed(path.split(".")):
        value = {key: value}
    return value


def another(path, value):
    if path in OTHERS:
        return OTHERS[path]
    if isinstance(value, bool):
        return not value
    if isinstance(value, int):
        return value + 7
    if isinstance(value, str):
        return "7m" if path.startswith("metrics.") and path.endswith(("After", "nterval", "Timeout")) else "other"
    if isinstance(value, list):
        return [{"topologyKey": "other", "operator": "Exists"}]
    return {"other": "other"}


def render(chart, *overrides):
    """What helm renders, with everything on and then the overrides; and what it complains of."""
    with tempfile.TemporaryDirectory() as folder:
        arguments = []
        for number, override in enumerate(overrides):
            file = os.path.join(folder, f"{number}.yaml")
            with open(file, "w", encoding="utf-8") as out:
                json.dump(override, out)
            arguments += ["--values", file]
        # --dry-run=client rather than `helm template`: the notes count too.
        done = subprocess.run(
            ["helm", "install", "check", chart, "--namespace", "outpost", "--dry-run=client", *arguments],
            capture_output=True, text=True, check=False)
        # Without the lines that tell the time of the dry run.
        text = "\n".join(line for line in done.stdout.splitlines() if not line.startswith("LAST DEPLOYED"))
        return text if done.returncode == 0 else None, done.stderr


def check_read(chart, full, base, path, value):
    without = [nest(key, off) for key, off in ONLY_WITHOUT.get(path, {}).items()]
    current = at(full, path)
    before = render(chart, full, *without)[0] if without else base
    after, problem = render(chart, full, *without, nest(path, another(path, value if current is None else current)))
    if after is None:
        return f"{path}: another value is refused, OTHERS needs one: {problem.strip()}"
    return f"{path}: no template reads it" if after == before else None


def check_type(chart, full, path, value):
    wrong = "text" if isinstance(value, (dict, list)) else {"a": "map"}
    rendered, problem = render(chart, full, nest(path, wrong))
    if rendered is not None:
        return f"{path}: {wrong!r} is taken for {value!r}"
    return None if "values don't meet" in problem else f"{path}: refused, but not by the schema: {problem.strip()}"


def check_unknown(chart, full, path):
    name = f"{path}.noSuchValue" if path else "noSuchValue"
    rendered, problem = render(chart, full, nest(name, "x"))
    if rendered is not None:
        return f"{name}: is not refused"
    return None if "noSuchValue" in problem else f"{name}: refused, but not by name: {problem.strip()}"


def main():
    chart, full = sys.argv[1:]
    with open(os.path.join(chart, "values.yaml"), encoding="utf-8") as file:
        values = yaml.safe_load(file)
    with open(full, encoding="utf-8") as file:
        full = yaml.safe_load(file)
    base, problem = render(chart, full)
    if base is None:
        sys.exit(problem)
    checks = []
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        for path, value in leaves(values):
            checks.append(pool.submit(check_read, chart, full, base, path, value))
            checks.append(pool.submit(check_type, chart, full, path, value))
        for path in maps(values):
            checks.append(pool.submit(check_unknown, chart, full, path))
        problems = [problem for problem in (check.result() for check in checks) if problem]
    print("\n".join(problems), file=sys.stderr)
    print(f"values: {len(checks) - len(problems)} passed, {len(problems)} failed")
    sys.exit(bool(problems))


main()
