package main

import (
	"fmt"
	"net/url"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"go.etcd.io/etcd/server/v3/embed"
)

// startLimit is generous: the machine may be compiling beside us.
const startLimit = 60 * time.Second

// etcdCommand runs one etcd member without durable writes: its data lives as
// long as the test run, and fsync would cost more than all the rest.
func etcdCommand() *cobra.Command {
	var folder, client, peer string
	command := &cobra.Command{
		Use:           "etcd",
		Short:         "one etcd member for tests, without fsync",
		Args:          cobra.NoArgs,
		SilenceUsage:  true,
		SilenceErrors: true,
		RunE: func(*cobra.Command, []string) error {
			config, err := etcdConfig(folder, client, peer)
			if err != nil {
				return err
			}
			return runEtcd(config)
		},
	}
	command.Flags().StringVar(&folder, "data-dir", "", "folder of the data")
	command.Flags().StringVar(&client, "client-url", "", "URL to serve clients at")
	command.Flags().StringVar(&peer, "peer-url", "", "URL to serve peers at (there are none, but etcd wants one)")
	for _, flag := range []string{"data-dir", "client-url", "peer-url"} {
		if err := command.MarkFlagRequired(flag); err != nil {
			panic(err) // only for a flag that does not exist
		}
	}
	return command
}

func etcdConfig(folder, client, peer string) (*embed.Config, error) {
	clientURL, err := url.Parse(client)
	if err != nil {
		return nil, fmt.Errorf("client URL: %w", err)
	}
	peerURL, err := url.Parse(peer)
	if err != nil {
		return nil, fmt.Errorf("peer URL: %w", err)
	}
	config := embed.NewConfig()
	config.Dir = folder
	config.ListenClientUrls = []url.URL{*clientURL}
	config.AdvertiseClientUrls = []url.URL{*clientURL}
	config.ListenPeerUrls = []url.URL{*peerURL}
	config.AdvertisePeerUrls = []url.URL{*peerURL}
	config.InitialCluster = config.InitialClusterFromName(config.Name)
	config.UnsafeNoFsync = true
	config.LogLevel = "warn"
	return config, nil
}

// runEtcd serves until SIGTERM, an interrupt or an error of the server.
func runEtcd(config *embed.Config) error {
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGTERM, os.Interrupt)
	server, err := embed.StartEtcd(config)
	if err != nil {
		return fmt.Errorf("start etcd: %w", err)
	}
	defer server.Close()
	select {
	case <-server.Server.ReadyNotify():
	case <-signals:
		return nil
	case <-time.After(startLimit):
		return fmt.Errorf("etcd was not ready after %s", startLimit)
	}
	select {
	case <-signals:
		return nil
	case err := <-server.Err():
		return fmt.Errorf("serve etcd: %w", err)
	}
}
