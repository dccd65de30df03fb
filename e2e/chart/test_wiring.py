"""That the parts meet: ports, Services, mounts, names and addresses that several objects repeat."""

import re
import unittest

import yaml

from rendering import NAMESPACE, REPOSITORY, VALUES, bootstrap, container, flags, named, of_kind, pod, render


def deployments(objects):
    return {o["metadata"]["name"]: o["spec"]["template"] for o in of_kind(objects, "Deployment")}


def selected(objects, selector):
    """Names of the Deployments whose pods have these labels."""
    return [
        name
        for name, template in deployments(objects).items()
        if selector.items() <= template["metadata"]["labels"].items()
    ]


def ports(template):
    return {p["name"]: p["containerPort"] for c in template["spec"]["containers"] for p in c["ports"]}


class Wiring(unittest.TestCase):
    maxDiff = None

    def test_every_service_selects_one_deployment_and_ports_that_it_has(self):
        for values in VALUES:
            objects = render(values)
            for service in of_kind(objects, "Service"):
                (name,) = selected(objects, service["spec"]["selector"])
                have = ports(deployments(objects)[name])
                for port in service["spec"]["ports"]:
                    self.assertIn(port["targetPort"], have, service["metadata"]["name"])
                    if service["spec"].get("clusterIP") == "None":
                        # Nobody translates ports there.
                        self.assertEqual(port["port"], have[port["targetPort"]])

    def test_the_services_are_these(self):
        def services(values):
            return {
                s["metadata"]["name"]: {p["name"]: p["port"] for p in s["spec"]["ports"]}
                for s in of_kind(render(values), "Service")
            }

        expected = {
            "sluice-proxy": {"http": 80},
            "sluice-proxy-metrics": {"metrics": 9090},
            "sluice-control": {"push": 15010, "metrics": 8080},
            "sluice-control-webhook": {"webhook": 443},
        }
        self.assertEqual(services("defaults"), expected)
        self.assertEqual(services("everything")["sluice-proxy"], {"https": 8443})

    def test_the_debug_endpoints_are_on_loopback_and_behind_no_service(self):
        for values in VALUES:
            objects = render(values)
            if "sluice-proxy" not in deployments(objects):
                continue
            address = yaml.safe_load(bootstrap(objects))["admin"]["address"]
            self.assertTrue(address.startswith("127.0.0.1:"), address)
            port = int(address.rpartition(":")[2])
            self.assertNotIn(port, ports(deployments(objects)["sluice-proxy"]).values())

    def test_the_gateway_listens_where_its_pod_says(self):
        for values in ("defaults", "everything", "routes-only"):
            objects = render(values)
            file = yaml.safe_load(bootstrap(objects))
            have = ports(deployments(objects)["sluice-proxy"])
            (listener,) = file["listeners"]
            name = "https" if "tls" in listener else "http"
            expected = {name: listener["address"], "metrics": file["metrics"]["address"]}
            self.assertEqual({n: int(a.rpartition(":")[2]) for n, a in expected.items()}, have)

    def test_the_control_loop_listens_where_its_pod_says(self):
        for values in ("defaults", "everything", "bare"):
            objects = render(values)
            given = flags(objects)
            have = ports(deployments(objects)["sluice-control"])
            expected = {"push": "--push-address", "metrics": "--operations-address"}
            if values != "bare":
                expected["webhook"] = "--webhook-address"
            self.assertEqual({n: int(given[f][0].rpartition(":")[2]) for n, f in expected.items()}, have)

    def test_the_gateway_connects_to_every_replica_of_the_control_loop(self):
        for values in ("defaults", "everything"):
            objects = render(values)
            push = yaml.safe_load(bootstrap(objects))["source"]["push"]
            service = named(objects, "Service", "sluice-control")["spec"]
            self.assertEqual(service["clusterIP"], "None")
            (port,) = (p["port"] for p in service["ports"] if p["name"] == "push")
            self.assertEqual(push["addresses"], [f"https://sluice-control.{NAMESPACE}.svc:{port}"])

    def test_every_file_that_the_gateway_is_told_of_is_mounted(self):
        for values in VALUES:
            objects = render(values)
            if "sluice-proxy" not in deployments(objects):
                continue
            one = container(objects, "sluice-proxy")
            mounts = [m["mountPath"] + "/" for m in one["volumeMounts"]]
            paths = re.findall(r"(?<=[ =])/(?:etc|var)/\S+", bootstrap(objects) + "\n" + "\n".join(one["args"]))
            self.assertTrue(paths)
            for path in paths:
                self.assertTrue(any((path + "/").startswith(mount) for mount in mounts), f"{values}: {path}")
            # Nothing is mounted that nobody reads.
            for mount in mounts:
                self.assertTrue(any((path + "/").startswith(mount) for path in paths), f"{values}: {mount}")

    def test_every_mount_has_its_volume_and_every_volume_its_mount(self):
        for values in VALUES:
            for name, template in deployments(render(values)).items():
                volumes = sorted(v["name"] for v in template["spec"].get("volumes", []))
                (one,) = template["spec"]["containers"]
                mounts = sorted(m["name"] for m in one.get("volumeMounts", []))
                self.assertEqual(mounts, volumes, f"{values}: {name}")

    def test_every_config_map_and_secret_of_a_volume_is_ours_or_a_value(self):
        given = {"my-routes", "kthena-router-config", "chat-tls", "webhook-tls"}
        for values in VALUES:
            objects = render(values)
            ours = {o["metadata"]["name"] for o in objects if o["kind"] in ("ConfigMap", "Secret")}
            for template in deployments(objects).values():
                for volume in template["spec"].get("volumes", []):
                    name = volume.get("configMap", {}).get("name") or volume.get("secret", {}).get("secretName")
                    self.assertTrue(name is None or name in ours | given, f"{values}: {name}")

    def test_the_webhook_is_asked_where_it_answers_and_about_the_three_kinds(self):
        for values, policy in (("defaults", "Fail"), ("everything", "Ignore")):
            objects = render(values)
            given = flags(objects)
            configuration = named(objects, "ValidatingWebhookConfiguration", given["--webhook-configuration"][0])
            kinds = {}
            for webhook in configuration["webhooks"]:
                service = webhook["clientConfig"]["service"]
                self.assertEqual((service["name"], service["namespace"]), (given["--webhook-service-name"][0], NAMESPACE))
                ours = named(objects, "Service", service["name"])["spec"]
                self.assertIn(service["port"], [p["port"] for p in ours["ports"]])
                self.assertNotEqual(ours.get("clusterIP"), "None", "the API server calls no headless Service")
                self.assertEqual(webhook["failurePolicy"], policy)
                self.assertNotIn("caBundle", webhook["clientConfig"], "an upgrade would fight over it")
                (rule,) = webhook["rules"]
                kinds[service["path"]] = rule["resources"]
            expected = {f"/validate/{kind}": [f"{kind}s"] for kind in ("externalmodelprovider", "modelroute", "modelserver")}
            self.assertEqual(kinds, expected)

    def test_the_webhook_is_asked_about_the_watched_namespaces_only(self):
        for webhook in named(render("restricted"), "ValidatingWebhookConfiguration")["webhooks"]:
            (expression,) = webhook["namespaceSelector"]["matchExpressions"]
            self.assertEqual((expression["operator"], expression["values"]), ("In", ["team-a", "team-b"]))

    def test_without_a_webhook_nobody_is_asked(self):
        self.assertEqual(of_kind(render("bare"), "ValidatingWebhookConfiguration"), [])
        self.assertEqual(flags(render("bare"))["--webhook"], ["false"])

    def test_the_gateways_are_granted_what_the_values_say(self):
        account = f"system:serviceaccount:{NAMESPACE}:sluice-proxy"
        self.assertEqual(flags(render())["--grant"], [f"{account}=*"])
        given = flags(render("restricted"))
        others = ["edge.example.com=team-a,team-b", "system:serviceaccount:edge:gateway=*"]
        self.assertEqual(given["--grant"], [f"{account}=team-a", *others])
        self.assertEqual(given["--namespaces"], ["team-a,team-b"])
        self.assertEqual(given["--secret-namespaces"], ["team-b"])

    def test_what_control_writes_is_there_under_the_names_that_it_may_write(self):
        objects = render()
        named(objects, "Lease", "sluice-control")
        for kind in ("Secret", "ConfigMap"):
            self.assertNotIn("data", named(objects, kind, "sluice-control-ca"), "an upgrade would overwrite it")
        self.assertEqual(flags(objects)["--lease-namespace"], [NAMESPACE])

    def test_replicas_of_control_reach_each_other_as_themselves(self):
        for values in ("defaults", "everything"):
            objects = render(values)
            given = flags(objects)
            service = named(objects, "Service", "sluice-control")["spec"]
            (port,) = (p["port"] for p in service["ports"] if p["name"] == "push")
            self.assertEqual(given["--replicas"], [f"https://sluice-control.{NAMESPACE}.svc:{port}"])
            (folder, _, file) = given["--replica-token-file"][0].rpartition("/")
            (mount,) = (m["name"] for m in container(objects, "sluice-control")["volumeMounts"] if m["mountPath"] == folder)
            (volume,) = (v for v in pod(objects, "sluice-control")["volumes"] if v["name"] == mount)
            (source,) = volume["projected"]["sources"]
            wanted = {"audience": "sluice-control", "expirationSeconds": 3600, "path": file}
            self.assertEqual(source["serviceAccountToken"], wanted)
            # Without --replica-identity it is this account of this namespace.
            self.assertEqual(pod(objects, "sluice-control")["serviceAccountName"], "sluice-control")
        self.assertNotIn("--replicas", flags(render("bare")))

    def test_network_policies_admit_every_port_and_the_stream_only_from_gateways(self):
        for values in ("defaults", "everything", "routes-only", "control-only"):
            objects = render(values)
            for name, template in deployments(objects).items():
                policy = named(objects, "NetworkPolicy", name)["spec"]
                self.assertEqual(selected(objects, policy["podSelector"]["matchLabels"]), [name])
                admitted = {p["port"]: rule.get("from") for rule in policy["ingress"] for p in rule["ports"]}
                self.assertEqual(set(admitted), set(ports(template)), values)
                if "push" in admitted:
                    for peer, component in zip(admitted["push"], ("proxy", "control"), strict=True):
                        wanted = {"app.kubernetes.io/name": "sluice", "app.kubernetes.io/component": component}
                        self.assertLessEqual(wanted.items(), peer["podSelector"]["matchLabels"].items())

    def test_gateways_reach_names_and_control_when_their_way_out_is_limited(self):
        egress = named(render("everything"), "NetworkPolicy", "sluice-proxy")["spec"]["egress"]
        open_ports = {p["port"] for rule in egress for p in rule.get("ports", [])}
        self.assertEqual(open_ports, {53, "push"})
        self.assertEqual(named(render(), "NetworkPolicy", "sluice-proxy")["spec"]["policyTypes"], ["Ingress"])

    def test_every_monitor_finds_one_service_with_its_port(self):
        objects = render("everything")
        for monitor in of_kind(objects, "ServiceMonitor"):
            selector = monitor["spec"]["selector"]["matchLabels"]
            found = [s for s in of_kind(objects, "Service") if selector.items() <= s["metadata"]["labels"].items()]
            self.assertEqual(len(found), 1, monitor["metadata"]["name"])
            (endpoint,) = monitor["spec"]["endpoints"]
            self.assertIn(endpoint["port"], [p["name"] for p in found[0]["spec"]["ports"]])
        self.assertEqual(len(of_kind(objects, "ServiceMonitor")), 2)

    def test_the_images_expose_what_the_pods_listen_on_and_run_as_the_same_nobody(self):
        objects = render()
        for program in ("sluice-proxy", "sluice-control"):
            text = (REPOSITORY / f"docker/Dockerfile.{program.removeprefix('sluice-')}").read_text()
            exposed = {int(port) for port in re.search(r"^EXPOSE (.*)$", text, re.M)[1].split()}
            self.assertEqual(exposed, set(ports(deployments(objects)[program]).values()), program)
            security = pod(objects, program)["securityContext"]
            self.assertIn(f"\nUSER {security['runAsUser']}:{security['runAsGroup']}\n", text)
            self.assertIn(f'\nENTRYPOINT ["/{program}"]\n', text)


if __name__ == "__main__":
    unittest.main()
