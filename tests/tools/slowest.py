"""Prints how many cases ran and the slowest ten, from the test runner's report.

Usage: slowest.py JUNIT_XML
"""

import sys
import xml.etree.ElementTree

cases = [
    (float(case.get("time")), f"{suite.get('name').split('::')[-1]} {case.get('name')}")
    for suite in xml.etree.ElementTree.parse(sys.argv[1]).getroot().iter("testsuite")
    for case in suite.iter("testcase")
]
print(f"\n{len(cases)} cases, {sum(seconds for seconds, _ in cases):.0f} s one after the other; the slowest:")
for seconds, name in sorted(cases, reverse=True)[:10]:
    print(f"{seconds:7.0f}  {name}")
