"""Values: each is there, is explained and has a schema; wrong ones are refused in words that help."""

import json
import re
import unittest

import yaml

from rendering import CHART, REPOSITORY, VALUES, helm, named, of_kind, refusal, render, value_file

SCHEMA = json.loads((CHART / "values.schema.json").read_text())


def resolve(schema):
    reference = schema.get("$ref")
    return SCHEMA["definitions"][reference.rpartition("/")[2]] if reference else schema


def paths_of_schema(schema, path=()):
    """Every value that the schema names."""
    for name, below in resolve(schema).get("properties", {}).items():
        below = resolve(below)
        yield (*path, name)
        if below.get("additionalProperties") is False:
            yield from paths_of_schema(below, (*path, name))


def paths_of_values(values, known, path=()):
    for name, below in values.items():
        yield (*path, name)
        if isinstance(below, dict) and any(k[: len(path) + 1] == (*path, name) and len(k) > len(path) + 1 for k in known):
            yield from paths_of_values(below, known, (*path, name))


class Values(unittest.TestCase):
    maxDiff = None

    def test_every_value_has_a_schema_and_every_schema_a_value(self):
        values = yaml.safe_load((CHART / "values.yaml").read_text())
        known = set(paths_of_schema(SCHEMA))
        # A pod's own words, where the schema leaves what Kubernetes defines to Kubernetes.
        known = {path for path in known if "resources" not in path[:-1]}
        self.assertEqual(set(paths_of_values(values, known)), known)

    def test_every_value_is_explained(self):
        lines = (CHART / "values.yaml").read_text().splitlines()
        silent = []
        for number, line in enumerate(lines):
            key = re.match(r" *([A-Za-z]+):( |$)", line)
            leaf = key and not re.match(r" *[A-Za-z]+:$", line)
            if leaf and not lines[number - 1].lstrip().startswith("#") and key[1] not in ("requests", "limits"):
                silent.append(line)
        # What stands inside of a value that is explained as a whole.
        inside = {"topologyKey", "whenUnsatisfiable", "stabilizationWindowSeconds"}
        self.assertEqual([line for line in silent if line.split(":")[0].strip() not in inside], [])

    def test_no_object_takes_other_names(self):
        def visit(schema, path):
            schema = resolve(schema)
            if "properties" in schema and path and path[-1] != "[]":
                self.assertIs(schema.get("additionalProperties"), False, path)
            for name, below in schema.get("properties", {}).items():
                visit(below, (*path, name))

        self.assertIs(SCHEMA["additionalProperties"], False)
        visit(SCHEMA, ())

    def test_wrong_values_are_refused_in_words_that_help(self):
        cases = [
            # By the schema.
            ("proxy.prot=8080", "'/proxy': additional properties 'prot' not allowed"),
            ("proxi={}", "additional properties 'proxi' not allowed"),
            ("proxy.port=80", "'/proxy/port': minimum: got 80, want 1,024"),
            ('proxy.port="8080"', "'/proxy/port': got string, want integer"),
            ("control.replicas=-1", "'/control/replicas': minimum"),
            ('control.webhook.failurePolicy="Retry"', "'/control/webhook/failurePolicy': value must be one of 'Fail', 'Ignore'"),
            ('control.namespaces="a"', "'/control/namespaces': got string, want array"),
            ('control.namespaces=["A_b"]', "'/control/namespaces/0': 'A_b' does not match pattern"),
            ('control.grants=["nobody"]', "'/control/grants/0': 'nobody' does not match pattern"),
            ('proxy.drain.timeout="5 minutes"', "'/proxy/drain/timeout': '5 minutes' does not match pattern"),
            ('proxy.accessLog.format="xml"', "'/proxy/accessLog/format': value must be one of 'json', 'text'"),
            ('proxy.routes.documents=[{"kind":"Deployment","apiVersion":"apps/v1","metadata":{}}]', "'/proxy/routes/documents/0/kind'"),
            ('listenAddress="localhost"', "'/listenAddress': 'localhost' does not match pattern"),
            # By the templates.
            ('proxy.config={"listeners":[]}', "proxy.config.listeners: set proxy.port and proxy.tls instead"),
            ('proxy.config={"source":{}}', "proxy.config.source: set proxy.routes, proxy.routerConfiguration and control instead"),
            ("proxy.terminationGracePeriodSeconds=305", "305 s is not above drain.delay and drain.timeout, 305 s together"),
            ('proxy.drain.timeout="1h30m"', "330 s is not above drain.delay and drain.timeout, 5405 s together"),
            ("control.leaderElection.enabled=false", "with several control.replicas one must lead"),
        ]
        for sets, words in cases:
            with self.subTest(sets=sets):
                self.assertIn(words, refusal(sets))

    def test_values_that_contradict_each_other_are_refused(self):
        scaler = "proxy.autoscaling.enabled=true"
        self.assertIn("minReplicas 11 is above maxReplicas 10", refusal(scaler, "proxy.autoscaling.minReplicas=11"))
        self.assertIn("nothing to go by", refusal(scaler, "proxy.autoscaling.targetCPUUtilizationPercentage=null"))
        document = {"apiVersion": "a", "kind": "ModelRoute", "metadata": {"name": "a"}}
        both = json.dumps({"documents": [document], "configMap": "a"})
        self.assertIn("documents and configMap are both set", refusal(f"proxy.routes={both}"))

    def test_every_set_of_values_passes_helm_lint(self):
        for values in VALUES:
            with self.subTest(values=values):
                answer = helm("lint", "--strict", str(CHART), "--values", str(value_file(values)))
                self.assertEqual(answer.returncode, 0, answer.stdout + answer.stderr)


class Release(unittest.TestCase):
    def test_every_object_says_its_namespace_unless_it_is_the_clusters(self):
        cluster = {"ClusterRole", "ClusterRoleBinding", "ValidatingWebhookConfiguration"}
        for values in VALUES:
            for each in render(values):
                self.assertEqual("namespace" not in each["metadata"], each["kind"] in cluster, each["metadata"]["name"])

    def test_what_is_the_clusters_has_the_namespace_in_its_name(self):
        for each in render():
            if "namespace" not in each["metadata"]:
                self.assertEqual(each["metadata"]["name"], "sluice-control-sluice-system")

    def test_no_two_objects_have_one_name(self):
        for values in VALUES:
            names = [(o["kind"], o["metadata"].get("namespace"), o["metadata"]["name"]) for o in render(values)]
            self.assertEqual(len(names), len(set(names)), values)

    def test_every_selector_names_the_release_and_never_a_version(self):
        for deployment in of_kind(render("everything"), "Deployment"):
            selector = deployment["spec"]["selector"]["matchLabels"]
            keys = {f"app.kubernetes.io/{key}" for key in ("name", "component", "instance")}
            self.assertEqual(set(selector), keys)
            labels = deployment["spec"]["template"]["metadata"]["labels"]
            self.assertEqual(set(labels), keys | {"team"}, "a new version of the chart would roll the pods")

    def test_it_is_the_version_of_the_workspace(self):
        chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
        cargo = re.search(r'^version = "(.*)"$', (REPOSITORY / "Cargo.toml").read_text(), re.M)[1]
        self.assertEqual(chart["appVersion"], cargo)
        images = {named(render(), "Deployment", n)["spec"]["template"]["spec"]["containers"][0]["image"] for n in ("sluice-proxy", "sluice-control")}
        self.assertEqual(images, {f"sluice-proxy:{cargo}", f"sluice-control:{cargo}"})

    def test_its_definitions_are_those_of_the_types(self):
        def texts(folder):
            return {path.name: path.read_text() for path in (REPOSITORY / folder).glob("*.yaml")}

        self.assertEqual(texts("helm/sluice/crds"), texts("crds/yaml"), "run `cargo run -p sluice-crds --bin crdgen`")

    def test_the_notes_speak_of_what_is_installed(self):
        def notes(values):
            answer = helm("install", "sluice", str(CHART), "--dry-run=client", "--namespace", "ai", "--values", str(value_file(values)))
            self.assertEqual(answer.returncode, 0, answer.stderr)
            return answer.stdout.partition("NOTES:")[2]

        self.assertIn("http://sluice-proxy.ai.svc:80", notes("defaults"))
        self.assertIn("https://sluice-proxy.ai.svc:8443", notes("everything"))
        self.assertIn("It reads no Secrets", notes("defaults"))
        self.assertNotIn("It reads no Secrets", notes("restricted"))
        self.assertIn("of team-a, team-b:", notes("restricted"))
        self.assertNotIn("control loop", notes("routes-only"))


if __name__ == "__main__":
    unittest.main()
