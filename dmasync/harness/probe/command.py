"""``dmasync probe``: what this host offers, what is missing, and the command that fixes it."""

from __future__ import annotations

import argparse
import importlib.metadata
import importlib.util
import json
import platform
import shutil
from dataclasses import asdict
from typing import Any

from rich.text import Text

import dmasync
from dmasync.harness.console import Column, console, print_table
from dmasync.harness.exit_status import ExitStatus
from dmasync.harness.old_names import with_old_target
from dmasync.harness.probe import nodes, remedies
from dmasync.harness.probe.kvm import try_kvm
from dmasync.harness.vm import cache, host_packages, kernels
from dmasync.harness.vm.host import host_machine, search_path

SCHEMA = 1
PIPE_WIDTH = 240
"""Columns where no terminal says how many it has: nothing is cut off."""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``dmasync probe``."""
    parser.add_argument("--json", action="store_true", help="for programs")


def run(options: argparse.Namespace) -> int:
    """Print what was found; 0 if a provider opens or a virtual machine can be booted, 4 where neither is so."""
    facts = gather()
    if options.json:
        print(json.dumps(facts, indent=1))  # noqa: T201
    else:
        _print_for_people(facts)
    return ExitStatus.SKIPPED if facts["target"] == "fake" else ExitStatus.GOOD


def gather() -> dict[str, Any]:
    """Return the facts as ``--json`` writes them; plain values only."""
    place, configuration = nodes.running_configuration()
    found = nodes.survey(configuration)
    machine = virtual_machine_facts()
    usable = any(node.opens for node in found)
    facts = {
        "schema": SCHEMA,
        # What `dmasync bench --on auto` would take.
        "target": "hardware" if usable else "vm" if machine["possible"] else "fake",
        "kernel": {
            "release": platform.release(),
            "machine": host_machine(),
            "config_source": place,
            "config": {name: None if configuration is None else configuration.get(name, "n") for name in nodes.OPTIONS},
        },
        "nodes": [asdict(node) for node in found],
        "udmabuf_limits": nodes.limits(),
        "compiled": compiled(),
        "virtual_machine": machine,
    }
    return with_old_target(facts)


def compiled() -> bool:
    """Whether dmasync's C extension is in use."""
    return dmasync.compiled


def virtual_machine_facts() -> dict[str, Any]:
    """Return whether ``dmasync vm`` can work here, with what, and the command that installs what is missing."""
    missing = host_packages.missing_parts()
    # The package lists are not asked: they take seconds, and the fetch says what it lacks.
    cached = kernels.cached(host_machine())
    can_fetch = all(shutil.which(program, path=search_path()) for program in ("apt-get", "dpkg"))
    # A boot needs the cache, whether it has a kernel already or not: a lock is taken there, modules are indexed.
    refused = cache.cannot_write()
    kvm, kvm_error = try_kvm()
    version = None
    if importlib.util.find_spec("virtme_ng") is not None:
        version = importlib.metadata.version("virtme-ng")
    udevd = host_packages.udev_daemon()
    return {
        "possible": version is not None and not missing and (bool(cached) or (can_fetch and not refused)),
        "virtme_ng": version,
        "programs": {
            part.program: shutil.which(part.program, path=search_path())
            for part in host_packages.needed_parts(host_machine())
        },
        "udev": udevd,
        "kernels_cached": cached,
        "kernels_can_be_fetched": can_fetch,
        "cache": str(cache.cache_directory()),
        "cache_error": refused or None,
        "kvm": kvm,
        "kvm_error": kvm_error or None,
        "missing": [part.program for part in missing],
        "remedies": remedies.for_virtual_machine(
            has_virtme=version is not None,
            missing=missing,
            has_kernel=bool(cached) or can_fetch,
            cache_error="" if cached else refused,
        ),
    }


def _print_for_people(facts: dict[str, Any]) -> None:
    shown = console(file_width=PIPE_WIDTH)
    kernel, machine = facts["kernel"], facts["virtual_machine"]
    shown.print(f"kernel {kernel['release']} ({kernel['machine']})")
    settings = " ".join(f"{name.removeprefix('CONFIG_')}={value or '?'}" for name, value in kernel["config"].items())
    shown.print(f"  configuration: {settings} ({kernel['config_source'] or 'not found'})", soft_wrap=True)
    shown.print(f"compiled core: {'in use' if facts['compiled'] else 'not in use, plain Python does its work'}")
    listed = facts["nodes"]
    rows = []
    for node in listed:
        permissions = f"{node['mode']} {node['owner']}:{node['group']}" if node["present"] else "-"
        rows.append((node["path"], node["flag"], "yes" if node["opens"] else node["error"], permissions))
    print_table(shown, [Column(name) for name in ("node", "provider", "opens", "permissions")], rows)
    # A remedy is told once, with the nodes that it is for: lines that are to be copied are never broken.
    for remedy in dict.fromkeys(node["remedy"] for node in listed if node["remedy"]):
        those = ", ".join(node["path"] for node in listed if node["remedy"] == remedy)
        shown.print(Text(f"fix {those} with:\n  {remedy}"), soft_wrap=True)
    bounds = facts["udmabuf_limits"]
    shown.print("udmabuf limits: " + " ".join(f"{k}={'?' if v is None else v}" for k, v in bounds.items()))
    shown.print(f"virtual machine: {'possible' if machine['possible'] else 'not possible yet'}")
    without = "not needed, machines are emulated"
    told = f"no ({machine['kvm_error']}; {without})" if machine["kvm_error"] else f"no ({without})"
    shown.print(
        Text(f"  virtme-ng {machine['virtme_ng'] or 'missing'}, kvm: {'yes (not needed)' if machine['kvm'] else told}"),
        soft_wrap=True,
    )
    for program, path in machine["programs"].items():
        shown.print(f"  {program}: {path or 'missing'}")
    kept = ", ".join(machine["kernels_cached"]) or "none"
    shown.print(f"  kernels in the cache: {kept} ({machine['cache']})", soft_wrap=True)
    if machine["cache_error"]:
        shown.print(f"  the cache cannot be written: {machine['cache_error']}", soft_wrap=True)
    for remedy in machine["remedies"]:
        shown.print(f"  fix with: {remedy}", soft_wrap=True)
    shown.print(f"dmasync bench would measure on: {facts['target']}")
