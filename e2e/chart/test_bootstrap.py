"""The gateway's own word on what the chart gives it: bootstrap files and routes, read by `sluice-proxy check`."""

import os
import pathlib
import subprocess
import tempfile
import unittest

import yaml

from rendering import VALUES, bootstrap, named, of_kind, render


def gateways():
    return [values for values in VALUES if any(o["metadata"]["name"] == "sluice-proxy" for o in of_kind(render(values), "Deployment"))]


def check(files):
    """What `sluice-proxy check` says to files of these names and texts; its exit status too."""
    with tempfile.TemporaryDirectory() as folder:
        paths = []
        for name, text in files.items():
            path = pathlib.Path(folder) / name
            path.write_text(text)
            paths.append(str(path))
        answer = subprocess.run([os.environ["SLUICE_PROXY"], "check", *paths], capture_output=True, text=True, check=False)
        return answer.returncode, answer.stdout + answer.stderr


class Bootstrap(unittest.TestCase):
    def test_the_gateway_accepts_every_bootstrap_file_without_a_warning(self):
        self.assertIn("defaults", gateways())
        for values in gateways():
            with self.subTest(values=values):
                status, words = check({"sluice.yaml": bootstrap(render(values))})
                self.assertEqual((status, words.strip()), (0, "0 errors, 0 warnings"))

    def test_the_gateway_would_refuse_a_wrong_one(self):
        file = yaml.safe_load(bootstrap(render("routes-only")))
        file["drain"]["timeot"] = "5m"
        status, words = check({"sluice.yaml": yaml.safe_dump(file)})
        self.assertEqual(status, 1)
        self.assertIn("timeot", words)

    def test_what_the_values_add_reaches_the_file(self):
        file = yaml.safe_load(bootstrap(render("everything")))
        self.assertEqual(file["limits"], {"bodyBytes": 1048576})
        self.assertEqual(file["scheduling"], {"policy": "least-request"})
        self.assertEqual([f["name"] for f in file["filters"]], ["cors"])
        self.assertEqual(file["drain"], {"delay": "1s500ms", "timeout": "1m"})
        self.assertEqual(file["accessLog"], {"enabled": True, "format": "text", "output": "/var/log/sluice/access.log"})
        self.assertEqual(file["listeners"][0]["address"], "[::]:18080")

    def test_without_a_control_loop_there_is_no_stream(self):
        self.assertEqual(yaml.safe_load(bootstrap(render("routes-only")))["source"], {"routes": "/etc/sluice/routes"})

    def test_the_routes_of_the_values_are_accepted(self):
        data = named(render("routes-only"), "ConfigMap", "sluice-proxy-routes")["data"]
        status, words = check(data)
        self.assertEqual((status, words.strip()), (0, "0 errors, 0 warnings"))


if __name__ == "__main__":
    unittest.main()
