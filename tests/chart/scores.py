#!/usr/bin/env python3
"""Runs kube-score and checkov over rendered manifests and holds the findings against suppressions.yaml.

Usage: scores.py SUPPRESSIONS RENDERING…     (kube-score and checkov are on PATH)
"""
import json
import os
import subprocess
import sys

import yaml


def output(*command):
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    try:
        return json.loads(done.stdout)
    except json.JSONDecodeError:
        sys.exit(f"{command[0]} failed:\n{done.stdout}{done.stderr}")


def kube_score(path):
    """(check, kind, what it says) of each finding, and how many checks were passed."""
    # A grade of 10 is the best; what does not apply is skipped.
    version = "--kubernetes-version=v1.36"
    findings, passed = [], 0
    for thing in output("kube-score", "score", version, "--output-format=json", path):
        for check in thing["checks"]:
            if check["skipped"] or check["grade"] == 10:
                passed += not check["skipped"]
                continue
            comments = "; ".join(comment["summary"] for comment in check["comments"] or [])
            findings.append((check["check"]["id"], thing["type_meta"]["kind"], f"{check['check']['name']}: {comments}"))
    return findings, passed


def checkov(path):
    # Without --skip-download it asks its makers' server for texts.
    report = output("checkov", "--file", path, "--framework", "kubernetes", "--skip-download", "--compact", "--quiet",
                    "--output", "json")
    failed = report["results"]["failed_checks"]
    if report["summary"]["parsing_errors"]:
        sys.exit(f"checkov can't read {path}")
    # checkov's graph names the pod of a template: "Pod.NAMESPACE.DEPLOYMENT.LABELS".
    return [(one["check_id"], one["resource"].split(".")[0], f"{one['check_name']} ({one['resource'][:80]})")
            for one in failed], report["summary"]["passed"]


def main():
    with open(sys.argv[1], encoding="utf-8") as file:
        suppressions = yaml.safe_load(file)
    used, problems, passed, suppressed = set(), [], 0, 0
    for path in sys.argv[2:]:
        rendering = os.path.splitext(os.path.basename(path))[0]
        for tool in (kube_score, checkov):
            findings, good = tool(path)
            passed += good
            for check, kind, words in findings:
                by = [number for number, entry in enumerate(suppressions)
                      if check in entry["checks"] and kind in entry["objects"]
                      and rendering in entry.get("renderings", [rendering])]
                used.update((number, check) for number in by)
                suppressed += bool(by)
                if not by:
                    problems.append(f"{rendering}: {tool.__name__} {check} on {kind}: {words}")
    for number, entry in enumerate(suppressions):
        problems += [f"suppressions.yaml: nothing needs {check} ({entry['reason'][:40]}…)"
                     for check in entry["checks"] if (number, check) not in used]
    print("\n".join(problems), file=sys.stderr)
    print(f"scores: {suppressed} findings suppressed with a reason")
    print(f"scores: {passed} passed, {len(problems)} failed")
    sys.exit(bool(problems))


main()
