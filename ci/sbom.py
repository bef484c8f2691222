#!/usr/bin/env python3
"""Prints the bill of materials of a package: every crate that is compiled into it, as CycloneDX 1.5. The same sources give the same text."""

import json
import subprocess
import sys


def metadata():
    command = ["cargo", "metadata", "--format-version=1", "--locked", "--filter-platform=x86_64-unknown-linux-gnu"]
    return json.loads(subprocess.run(command, check=True, capture_output=True).stdout)


def linked(resolve, root):
    """Ids of the packages that end up in the program: no build scripts, no tests."""
    nodes = {node["id"]: node for node in resolve["nodes"]}
    found, waiting = set(), [root]
    while waiting:
        package = waiting.pop()
        if package in found:
            continue
        found.add(package)
        for dependency in nodes[package]["deps"]:
            if any(kind["kind"] is None for kind in dependency["dep_kinds"]):
                waiting.append(dependency["pkg"])
    return found


def component(package, kind="library"):
    reference = f"pkg:cargo/{package['name']}@{package['version']}"
    described = {"type": kind, "bom-ref": reference, "name": package["name"], "version": package["version"], "purl": reference}
    if package.get("license"):
        described["licenses"] = [{"expression": package["license"].replace("/", " OR ")}]
    return described


def main():
    name = sys.argv[1]
    everything = metadata()
    packages = {package["id"]: package for package in everything["packages"]}
    root = next(id for id in everything["workspace_members"] if packages[id]["name"] == name)
    parts = sorted(linked(everything["resolve"], root) - {root}, key=lambda id: (packages[id]["name"], packages[id]["version"]))
    bill = {
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "version": 1,
        "metadata": {"component": component(packages[root], "application")},
        "components": [component(packages[part]) for part in parts],
    }
    json.dump(bill, sys.stdout, indent=1)
    print()


main()
