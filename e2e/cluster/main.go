// Command kube is the control plane that the cluster tests start: etcd, the
// Kubernetes API server, its scheduler and controller manager, and kubectl,
// as subcommands of one binary, so that it is built, cached and shared once.
//
// It is upstream's code, unchanged, behind one switch. It is not a kubelet
// (the tests bring their own, in Rust) and not meant for anything but tests.
package main

import (
	"fmt"
	"os"

	"github.com/spf13/cobra"
	"k8s.io/component-base/cli"
	_ "k8s.io/component-base/logs/json/register"          // for --logging-format=json
	_ "k8s.io/component-base/metrics/prometheus/clientgo" // client metrics, as upstream's mains have
	_ "k8s.io/component-base/metrics/prometheus/version"  // version metric, as upstream's mains have
	kubectl "k8s.io/kubectl/pkg/cmd"
	apiserver "k8s.io/kubernetes/cmd/kube-apiserver/app"
	manager "k8s.io/kubernetes/cmd/kube-controller-manager/app"
	scheduler "k8s.io/kubernetes/cmd/kube-scheduler/app"
)

const usage = "usage: kube etcd|apiserver|scheduler|controller-manager|kubectl [FLAGS]"

func main() {
	if len(os.Args) < 2 {
		fail(usage)
	}
	name := os.Args[1]
	// Each command reads its flags from os.Args itself.
	os.Args = append([]string{name}, os.Args[2:]...)
	switch name {
	case "etcd":
		os.Exit(cli.Run(etcdCommand()))
	case "apiserver":
		os.Exit(cli.Run(apiserver.NewAPIServerCommand()))
	case "scheduler":
		os.Exit(cli.Run(scheduler.NewSchedulerCommand()))
	case "controller-manager":
		os.Exit(cli.Run(manager.NewControllerManagerCommand()))
	case "kubectl":
		runKubectl(kubectl.NewDefaultKubectlCommand())
	default:
		fail(fmt.Sprintf("no command %q; %s", name, usage))
	}
}

// runKubectl exits with the status that kubectl chose and prints no error
// twice: kubectl has its own way of reporting them.
func runKubectl(command *cobra.Command) {
	if err := cli.RunNoErrOutput(command); err != nil {
		fail(err.Error())
	}
}

func fail(message string) {
	fmt.Fprintln(os.Stderr, message)
	os.Exit(1)
}
