"""What the pods are: nobody, on a root they cannot write, and gone without a cut stream."""

import re
import unittest

from rendering import VALUES, bootstrap, container, named, of_kind, pod, render

import yaml

POD_SECURITY = {
    "runAsNonRoot": True,
    "runAsUser": 65532,
    "runAsGroup": 65532,
    "fsGroup": 65532,
    "seccompProfile": {"type": "RuntimeDefault"},
}
CONTAINER_SECURITY = {
    "allowPrivilegeEscalation": False,
    "readOnlyRootFilesystem": True,
    "capabilities": {"drop": ["ALL"]},
}


def seconds(duration):
    units = {"h": 3600, "m": 60, "s": 1, "ms": 0.001}
    return sum(int(number) * units[unit] for number, unit in re.findall(r"(\d+)(h|ms|m|s)", duration))


class Pods(unittest.TestCase):
    def test_every_pod_is_nobody_without_a_writable_root(self):
        for values in VALUES:
            for deployment in of_kind(render(values), "Deployment"):
                with self.subTest(values=values, deployment=deployment["metadata"]["name"]):
                    spec = deployment["spec"]["template"]["spec"]
                    self.assertEqual(spec["securityContext"], POD_SECURITY)
                    for one in spec["containers"]:
                        self.assertEqual(one["securityContext"], CONTAINER_SECURITY)
                    self.assertFalse({"hostNetwork", "hostPID", "hostIPC", "initContainers"} & set(spec))
                    self.assertFalse(spec["enableServiceLinks"])
                    self.assertFalse([v for v in spec.get("volumes", []) if "hostPath" in v])

    def test_the_gateway_gets_no_token_for_the_api_server(self):
        for values in VALUES:
            objects = render(values)
            if not of_kind(objects, "ConfigMap") or values == "control-only":
                continue
            self.assertIs(named(objects, "ServiceAccount", "sluice-proxy")["automountServiceAccountToken"], False)
            spec = pod(objects, "sluice-proxy")
            self.assertIs(spec["automountServiceAccountToken"], False)
            self.assertEqual(spec["serviceAccountName"], "sluice-proxy")
            tokens = [
                source["serviceAccountToken"]
                for volume in spec["volumes"]
                for source in volume.get("projected", {}).get("sources", [])
            ]
            wanted = [{"audience": "sluice-control", "expirationSeconds": 3600, "path": "token"}]
            self.assertEqual(tokens, [] if values == "routes-only" else wanted)

    def test_two_control_loops_without_election_never_run_at_once(self):
        def strategy(*values):
            return named(render(*values), "Deployment", "sluice-control")["spec"]["strategy"]

        self.assertEqual(strategy("defaults")["rollingUpdate"], {"maxSurge": 1, "maxUnavailable": 0})
        alone = ("control.replicas=1", "control.leaderElection.enabled=false")
        self.assertEqual(strategy("defaults", *alone), {"type": "Recreate"})

    def test_both_are_probed_where_they_answer(self):
        for values in ("defaults", "everything"):
            for name in ("sluice-proxy", "sluice-control"):
                one = container(render(values), name)
                self.assertEqual(one["readinessProbe"]["httpGet"], {"path": "/readyz", "port": "metrics"})
                self.assertEqual(one["livenessProbe"]["httpGet"], {"path": "/healthz", "port": "metrics"})

    def test_streams_have_their_time_before_the_pod_is_killed(self):
        for values in ("defaults", "everything", "bare"):
            objects = render(values)
            drain = yaml.safe_load(bootstrap(objects))["drain"]
            grace = pod(objects, "sluice-proxy")["terminationGracePeriodSeconds"]
            self.assertGreater(grace, seconds(drain["delay"]) + seconds(drain["timeout"]), values)

    def test_the_webhook_goes_on_answering_until_it_is_no_longer_asked(self):
        spec = pod(render(), "sluice-control")
        pause = spec["containers"][0]["lifecycle"]["preStop"]["sleep"]["seconds"]
        self.assertGreaterEqual(pause, 5)
        self.assertGreater(spec["terminationGracePeriodSeconds"], pause)

    def test_a_new_version_comes_before_an_old_one_goes(self):
        for deployment in of_kind(render(), "Deployment"):
            self.assertEqual(deployment["spec"]["strategy"]["rollingUpdate"], {"maxSurge": 1, "maxUnavailable": 0})

    def test_the_pods_spread_and_few_may_be_missing(self):
        objects = render()
        for name in ("sluice-proxy", "sluice-control"):
            labels = named(objects, "Deployment", name)["spec"]["selector"]["matchLabels"]
            budget = named(objects, "PodDisruptionBudget", name)["spec"]
            self.assertEqual((budget["selector"]["matchLabels"], budget["maxUnavailable"]), (labels, 1))
        proxy = named(objects, "Deployment", "sluice-proxy")["spec"]
        for constraint in proxy["template"]["spec"]["topologySpreadConstraints"]:
            self.assertEqual(constraint["labelSelector"]["matchLabels"], proxy["selector"]["matchLabels"])
        self.assertEqual(named(objects, "Deployment", "sluice-control")["spec"]["replicas"], 2)
        self.assertIn("podAntiAffinity", pod(objects, "sluice-control")["affinity"])

    def test_an_autoscaler_is_not_fought_over_the_number_of_pods(self):
        objects = render("everything")
        self.assertNotIn("replicas", named(objects, "Deployment", "sluice-proxy")["spec"])
        scaler = named(objects, "HorizontalPodAutoscaler", "sluice-proxy")["spec"]
        self.assertEqual((scaler["minReplicas"], scaler["maxReplicas"]), (3, 30))
        self.assertEqual(scaler["scaleTargetRef"], {"apiVersion": "apps/v1", "kind": "Deployment", "name": "sluice-proxy"})

    def test_a_change_of_the_bootstrap_file_rolls_the_gateways_and_nothing_else_does(self):
        def checksum(*sets):
            return named(render("routes-only", *sets), "Deployment", "sluice-proxy")["spec"]["template"]

        before = checksum()
        self.assertNotEqual(before, checksum('proxy.config={"limits":{"headerCount":64}}'))
        self.assertEqual(before, checksum("proxy.routes.documents[0].spec.endpoints[0].address=\"other:8000\""))
        self.assertEqual(before, checksum("proxy.replicas=7"))


if __name__ == "__main__":
    unittest.main()
