"""What `sluice-control` says and the chart repeats: flags, values for those who come from Kthena, examples."""

import os
import pathlib
import re
import subprocess
import tempfile
import unittest

from rendering import CHART, REPOSITORY, VALUES, container, helm, of_kind, render

# Kthena's chart, its defaults (v1.0), with what its users change most.
KTHENA = """
networking:
  enabled: true
  kthenaRouter:
    enabled: true
    replicas: 3
    port: 8080
    metrics: {port: 9090, exposeOnRouterPort: false}
    debugPort: 15000
    service: {type: LoadBalancer}
    resource: {limits: {cpu: 500m, memory: 512Mi}}
    accessLog: {enabled: true, format: text, output: stdout}
    tls: {enabled: true, dnsName: models.example.com, secretName: kthena-router-tls}
    webhook: {enabled: true, port: 8443, servicePort: 443}
    fairness: {enabled: false, windowSize: 1h, inputTokenWeight: 1, outputTokenWeight: 2, maxConcurrent: 0}
    sessionBoost: {enabled: false, header: X-Session-ID, maxSessions: 4096}
    gatewayAPI: {enabled: false, inferenceExtension: false}
    terminationGracePeriodSeconds: 330
    drainTimeout: 5m
workload:
  enabled: true
  controllerManager: {replicas: 1}
global: {certManagementMode: auto}
"""


def run(name, *arguments):
    """Runs a program, which `check-chart.sh` has built and put into the environment."""
    program = os.environ[name.upper().replace("-", "_")]
    return subprocess.run([program, *arguments], capture_output=True, text=True, check=False)


class Programs(unittest.TestCase):
    def know_every_flag_that_they_are_given(self, name):
        known = set(re.findall(r"--[a-z][a-z-]+", run(name, "--help").stdout))
        seen = 0
        for values in VALUES:
            objects = render(values)
            if any(o["metadata"]["name"] == name for o in of_kind(objects, "Deployment")):
                given = {a.partition("=")[0] for a in container(objects, name)["args"]}
                self.assertLessEqual(given, known, values)
                seen += 1
        self.assertGreater(seen, 3)

    def test_the_gateway_knows_every_flag_that_it_is_given(self):
        self.know_every_flag_that_they_are_given("sluice-proxy")

    def test_the_control_loop_knows_every_flag_that_it_is_given(self):
        self.know_every_flag_that_they_are_given("sluice-control")

    def test_values_migrated_from_kthena_are_values_of_the_chart(self):
        with tempfile.TemporaryDirectory() as folder:
            old, new = pathlib.Path(folder) / "kthena.yaml", pathlib.Path(folder) / "sluice.yaml"
            old.write_text(KTHENA)
            answer = run("sluice-control", "migrate", "-f", str(old))
            self.assertEqual(answer.returncode, 0, answer.stderr)
            self.assertIn("0 unknown", answer.stderr)
            new.write_text(answer.stdout)
            rendered = helm("template", "sluice", str(CHART), "--values", str(new))
            self.assertEqual(rendered.returncode, 0, rendered.stderr + answer.stdout)
            self.assertIn("type: LoadBalancer", rendered.stdout)
            self.assertIn("secretName: kthena-router-tls", rendered.stdout)

    def test_the_control_loop_accepts_the_examples_of_kthena(self):
        answer = run("sluice-control", "check", "-f", str(REPOSITORY / "config/examples/kthena"))
        self.assertEqual(answer.returncode, 0, answer.stdout + answer.stderr)


if __name__ == "__main__":
    unittest.main()
