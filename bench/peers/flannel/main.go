// Flannel's own udp backend between two nodes, with the leases given on the
// command line in place of etcd.
//
// Owns: the two leases. Everything that touches a packet is flannel's package.
//
//	flannel-udp DEVICE OWN-ADDRESS OWN-SUBNET PEER-ADDRESS PEER-SUBNET NETWORK
package main

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/signal"
	"sync"
	"syscall"

	"github.com/flannel-io/flannel/pkg/backend"
	_ "github.com/flannel-io/flannel/pkg/backend/udp"
	"github.com/flannel-io/flannel/pkg/ip"
	"github.com/flannel-io/flannel/pkg/lease"
	"github.com/flannel-io/flannel/pkg/subnet"
)

// leases is a subnet.Manager whose cluster never changes.
type leases struct{ own, peer lease.Lease }

func (l *leases) GetNetworkConfig(context.Context) (*subnet.Config, error) { return nil, nil }
func (l *leases) HandleSubnetFile(string, *subnet.Config, bool, ip.IP4Net, ip.IP6Net, int) error {
	return nil
}
func (l *leases) AcquireLease(context.Context, *lease.LeaseAttrs) (*lease.Lease, error) {
	return &l.own, nil
}
func (l *leases) RenewLease(context.Context, *lease.Lease) error { return nil }
func (l *leases) WatchLease(context.Context, ip.IP4Net, ip.IP6Net, chan []lease.LeaseWatchResult) error {
	return nil
}
func (l *leases) WatchLeases(ctx context.Context, receiver chan []lease.LeaseWatchResult) error {
	receiver <- []lease.LeaseWatchResult{{Snapshot: []lease.Lease{l.own, l.peer}}}
	<-ctx.Done()
	close(receiver)
	return ctx.Err()
}
func (l *leases) CompleteLease(context.Context, *lease.Lease, *sync.WaitGroup) error { return nil }
func (l *leases) GetStoredMacAddresses(context.Context) (string, string)             { return "", "" }
func (l *leases) GetStoredPublicIP(context.Context) (string, string)                 { return "", "" }
func (l *leases) Name() string                                                       { return "fixed" }

func newLease(address, prefix string) lease.Lease {
	_, network, err := net.ParseCIDR(prefix)
	check(err)
	return lease.Lease{
		EnableIPv4: true,
		Subnet:     ip.FromIPNet(network),
		Attrs:      lease.LeaseAttrs{PublicIP: ip.FromIP(net.ParseIP(address)), BackendType: "udp"},
	}
}

func check(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, "flannel-udp:", err)
		os.Exit(1)
	}
}

func main() {
	if len(os.Args) != 7 {
		fmt.Fprintln(os.Stderr, "usage: flannel-udp DEVICE OWN-ADDRESS OWN-SUBNET PEER-ADDRESS PEER-SUBNET NETWORK")
		os.Exit(2)
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	device, err := net.InterfaceByName(os.Args[1])
	check(err)
	own := net.ParseIP(os.Args[2])
	_, network, err := net.ParseCIDR(os.Args[6])
	check(err)
	manager := backend.NewManager(ctx,
		&leases{newLease(os.Args[2], os.Args[3]), newLease(os.Args[4], os.Args[5])},
		&backend.ExternalInterface{Iface: device, IfaceAddr: own, ExtAddr: own})
	kind, err := manager.GetBackend("udp")
	check(err)
	var group sync.WaitGroup
	running, err := kind.RegisterNetwork(ctx, &group, &subnet.Config{EnableIPv4: true, Network: ip.FromIPNet(network)})
	check(err)
	fmt.Println("ready, mtu", running.MTU())
	running.Run(ctx)
}
