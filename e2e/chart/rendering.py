"""The chart as helm renders it, and ways to find one's way in it.

For: the tests beside this file. Not for: judging anything.
"""

import functools
import os
import pathlib
import subprocess

import yaml

REPOSITORY = pathlib.Path(__file__).resolve().parents[2]
CHART = REPOSITORY / "helm/sluice"
NAMESPACE = "sluice-system"
VALUES = sorted(path.stem for path in (REPOSITORY / "e2e/chart/values").glob("*.yaml"))


def helm(*arguments):
    """Runs helm, which `check-chart.sh` has put into the environment."""
    return subprocess.run([os.environ["HELM"], *arguments], capture_output=True, text=True, check=False)


def value_file(name):
    return REPOSITORY / f"e2e/chart/values/{name}.yaml"


@functools.cache
def render(values="defaults", *sets):
    """The objects that a set of values gives, `--set-json` texts on top of it."""
    extra = [argument for text in sets for argument in ("--set-json", text)]
    answer = helm("template", "sluice", str(CHART), "--namespace", NAMESPACE, "--values", str(value_file(values)), *extra)
    assert answer.returncode == 0, answer.stderr
    return [document for document in yaml.safe_load_all(answer.stdout) if document]


def refusal(*sets):
    """What helm says to values that must not be taken."""
    extra = [argument for text in sets for argument in ("--set-json", text)]
    answer = helm("template", "sluice", str(CHART), "--namespace", NAMESPACE, *extra)
    assert answer.returncode != 0, f"{sets} was taken"
    return answer.stderr


def named(objects, kind, name=None):
    """The one object of a kind (and name)."""
    found = [o for o in objects if o["kind"] == kind and name in (None, o["metadata"]["name"])]
    assert len(found) == 1, f"{len(found)} objects are {kind} {name}"
    return found[0]


def of_kind(objects, kind):
    return [o for o in objects if o["kind"] == kind]


def pod(objects, name):
    """Specification of the pods of a Deployment."""
    return named(objects, "Deployment", name)["spec"]["template"]["spec"]


def container(objects, name):
    (only,) = pod(objects, name)["containers"]
    return only


def flags(objects):
    """The flags of sluice-control: name to list of values, None for one without."""
    result = {}
    for argument in container(objects, "sluice-control")["args"]:
        name, _, value = argument.partition("=")
        result.setdefault(name, []).append(value or None)
    return result


def bootstrap(objects):
    """The gateway's bootstrap file, as text."""
    return named(objects, "ConfigMap", "sluice-proxy")["data"]["sluice.yaml"]
