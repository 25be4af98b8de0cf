package main

import (
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"

	transport "github.com/Jille/raft-grpc-transport"
	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"
	raftboltdb "github.com/hashicorp/raft-boltdb/v2"
	wal "github.com/hashicorp/raft-wal"
	"google.golang.org/grpc"
)

type settings struct {
	ID        string     `json:"id"`
	Path      string     `json:"path"`
	Members   [][]string `json:"members"` // id and address, in the order of the configuration
	Store     string     `json:"store"`
	Transport string     `json:"transport"`
	Tuned     bool       `json:"tuned"`
	Config    struct {
		HeartbeatTimeout  *float64 `json:"heartbeat_timeout"`
		ElectionTimeout   *float64 `json:"election_timeout"`
		LeaseTimeout      *float64 `json:"leader_lease_timeout"`
		SnapshotThreshold *uint64  `json:"snapshot_threshold"`
		TrailingLogs      *uint64  `json:"trailing_logs"`
	} `json:"config"`
}

type store interface {
	raft.LogStore
	raft.StableStore
}

// cachedEntries is more than is ever on its way to a follower, so that none is read from the disk again.
const cachedEntries = 16384

type node struct {
	id    string
	raft  *raft.Raft
	fsm   *tally
	store store
}

func open(given settings) (*node, error) {
	if err := os.MkdirAll(given.Path, 0o755); err != nil {
		return nil, err
	}
	logger := hclog.New(&hclog.LoggerOptions{Name: given.ID, Level: hclog.Warn, Output: os.Stderr})
	store, err := openStore(given)
	if err != nil {
		return nil, err
	}
	snapshots, err := raft.NewFileSnapshotStoreWithLogger(given.Path, 2, logger)
	if err != nil {
		return nil, err
	}
	trans, err := openTransport(given, logger)
	if err != nil {
		return nil, err
	}
	config := configFor(given, logger)
	if err := bootstrap(given, config, store, snapshots, trans); err != nil {
		return nil, err
	}
	fsm := &tally{}
	var logs raft.LogStore = store
	if strings.HasSuffix(given.Store, "-cached") {
		if logs, err = raft.NewLogCache(cachedEntries, store); err != nil {
			return nil, err
		}
	}
	server, err := raft.NewRaft(config, fsm, logs, store, snapshots, trans)
	if err != nil {
		return nil, err
	}
	return &node{id: given.ID, raft: server, fsm: fsm, store: store}, nil
}

func configFor(given settings, logger hclog.Logger) *raft.Config {
	config := raft.DefaultConfig()
	config.LocalID = raft.ServerID(given.ID)
	config.Logger = logger
	if given.Tuned {
		config.BatchApplyCh = true
		config.MaxAppendEntries = 1024
	}
	setSeconds(&config.HeartbeatTimeout, given.Config.HeartbeatTimeout)
	setSeconds(&config.ElectionTimeout, given.Config.ElectionTimeout)
	setSeconds(&config.LeaderLeaseTimeout, given.Config.LeaseTimeout)
	if given.Config.SnapshotThreshold != nil {
		config.SnapshotThreshold = *given.Config.SnapshotThreshold
	}
	if given.Config.TrailingLogs != nil {
		config.TrailingLogs = *given.Config.TrailingLogs
	}
	return config
}

func setSeconds(field *time.Duration, seconds *float64) {
	if seconds != nil {
		*field = time.Duration(*seconds * float64(time.Second))
	}
}

func openStore(given settings) (store, error) {
	switch strings.TrimSuffix(given.Store, "-cached") {
	case "boltdb":
		return raftboltdb.NewBoltStore(filepath.Join(given.Path, "raft.db"))
	case "wal":
		folder := filepath.Join(given.Path, "wal")
		if err := os.MkdirAll(folder, 0o755); err != nil {
			return nil, err
		}
		return wal.Open(folder)
	case "memory":
		return raft.NewInmemStore(), nil
	}
	return nil, fmt.Errorf("no such store: %q", given.Store)
}

func openTransport(given settings, logger hclog.Logger) (raft.Transport, error) {
	address := ""
	for _, member := range given.Members {
		if member[0] == given.ID {
			address = member[1]
		}
	}
	switch given.Transport {
	case "tcp":
		advertise, err := net.ResolveTCPAddr("tcp", address)
		if err != nil {
			return nil, err
		}
		return raft.NewTCPTransportWithLogger(address, advertise, 3, 10*time.Second, logger)
	case "grpc":
		manager := transport.New(raft.ServerAddress(address), []grpc.DialOption{grpc.WithInsecure()})
		// gRPC's own limit of 4 MiB would stop the larger commands.
		server := grpc.NewServer(grpc.MaxRecvMsgSize(math.MaxInt32))
		manager.Register(server)
		listener, err := net.Listen("tcp", address)
		if err != nil {
			return nil, err
		}
		go func() { _ = server.Serve(listener) }()
		return manager.Transport(), nil
	}
	return nil, fmt.Errorf("no such transport: %q", given.Transport)
}

func bootstrap(
	given settings, config *raft.Config, store store, snapshots raft.SnapshotStore, trans raft.Transport,
) error {
	used, err := raft.HasExistingState(store, store, snapshots)
	if err != nil || used {
		return err
	}
	var members raft.Configuration
	for _, member := range given.Members {
		members.Servers = append(members.Servers, raft.Server{
			Suffrage: raft.Voter, ID: raft.ServerID(member[0]), Address: raft.ServerAddress(member[1]),
		})
	}
	return raft.BootstrapCluster(config, store, store, snapshots, trans, members)
}

func (n *node) waitForLeader(limit time.Duration) error {
	for end := time.Now().Add(limit); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		if _, id := n.raft.LeaderWithID(); id != "" {
			return nil
		}
	}
	return errors.New("no leader in time")
}

func (n *node) close() {
	_ = n.raft.Shutdown().Error()
	if closer, ok := n.store.(io.Closer); ok {
		_ = closer.Close()
	}
}
