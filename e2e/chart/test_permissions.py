"""Who may do what: the rendered permissions word by word, and what none of them may ever be."""

import unittest

import yaml

from rendering import NAMESPACE, REPOSITORY, VALUES, of_kind, render


def words(rule):
    """One rule as `permissions.yaml` writes it."""
    assert set(rule) <= {"apiGroups", "resources", "resourceNames", "verbs"}, rule
    names = ":" + ",".join(rule["resourceNames"]) if "resourceNames" in rule else ""
    for group in rule["apiGroups"]:
        for resource in rule["resources"]:
            yield f"{group or 'core'}/{resource}{names}", " ".join(sorted(rule["verbs"]))


def permissions(objects):
    """Every role's rules, by `KIND [NAMESPACE/]NAME`."""
    result = {}
    for role in of_kind(objects, "ClusterRole") + of_kind(objects, "Role"):
        name = "/".join(filter(None, (role["metadata"].get("namespace"), role["metadata"]["name"])))
        rules = result[f"{role['kind']} {name}"] = {}
        for rule in role["rules"]:
            for what, verbs in words(rule):
                assert what not in rules, f"{name}: {what} stands there twice"
                rules[what] = verbs
    return result


class Permissions(unittest.TestCase):
    maxDiff = None

    def test_they_are_those_written_down_and_no_others(self):
        text = (REPOSITORY / "e2e/chart/permissions.yaml").read_text()
        for values, expected in yaml.safe_load(text).items():
            with self.subTest(values=values):
                self.assertEqual(permissions(render(values)), expected)

    def test_secrets_are_never_readable_cluster_wide_and_only_one_without_being_asked(self):
        for values in VALUES:
            for role, rules in permissions(render(values)).items():
                for what, verbs in rules.items():
                    if "secrets" in what.split(":")[0]:
                        named = what == "core/secrets:sluice-control-ca"
                        asked = "/sluice-control-credentials-" in role
                        self.assertTrue(role.startswith("Role ") and (named or asked), f"{values}: {role}: {what}: {verbs}")

    def test_nothing_is_written_with_wildcards_and_nothing_may_be_deleted(self):
        for values in VALUES:
            for role, rules in permissions(render(values)).items():
                for what, verbs in rules.items():
                    self.assertNotIn("*", what + verbs, role)
                    self.assertFalse({"delete", "deletecollection", "escalate", "bind", "impersonate"} & set(verbs.split()), role)

    def test_what_is_created_is_an_event_or_a_review_of_a_token(self):
        for values in VALUES:
            for rules in permissions(render(values)).values():
                created = {what for what, verbs in rules.items() if "create" in verbs.split()}
                self.assertLessEqual(created, {"events.k8s.io/events", "authentication.k8s.io/tokenreviews"})

    def test_every_role_is_bound_to_the_control_loop_and_to_nobody_else(self):
        for values in VALUES:
            objects = render(values)
            bound = set()
            for binding in of_kind(objects, "RoleBinding") + of_kind(objects, "ClusterRoleBinding"):
                subject = {"kind": "ServiceAccount", "name": "sluice-control", "namespace": NAMESPACE}
                self.assertEqual(binding["subjects"], [subject], values)
                self.assertEqual(binding["roleRef"]["kind"] + "Binding", binding["kind"])
                bound.add((binding["roleRef"]["kind"], binding["metadata"].get("namespace"), binding["roleRef"]["name"]))
            roles = of_kind(objects, "Role") + of_kind(objects, "ClusterRole")
            self.assertEqual(bound, {(r["kind"], r["metadata"].get("namespace"), r["metadata"]["name"]) for r in roles})


if __name__ == "__main__":
    unittest.main()
