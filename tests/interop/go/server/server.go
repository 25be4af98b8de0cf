package main

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"time"

	transport "github.com/Jille/raft-grpc-transport"
	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"
	boltdb "github.com/hashicorp/raft-boltdb/v2"
	wal "github.com/hashicorp/raft-wal"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
)

// settings of one server; durations are seconds.
type settings struct {
	ID        string `json:"id"`
	Bind      string `json:"bind"`
	Advertise string `json:"advertise"`
	Path      string `json:"path"`
	Transport string `json:"transport"` // tcp, grpc
	Store     string `json:"store"`     // boltdb, wal, inmem

	Timeout           float64 `json:"timeout"` // of heartbeats, elections and the leader's lease
	CommitTimeout     float64 `json:"commit_timeout"`
	SnapshotInterval  float64 `json:"snapshot_interval"`
	SnapshotThreshold uint64  `json:"snapshot_threshold"`
	TrailingLogs      uint64  `json:"trailing_logs"`
	MaxAppendEntries  int     `json:"max_append_entries"`
	PreVote           bool    `json:"pre_vote"`
	Pipeline          bool    `json:"pipeline"`
}

type server struct {
	raft    *raft.Raft
	chain   *chain
	carrier raft.Transport
	store   raft.LogStore
}

func open(s settings) (*server, error) {
	logger := hclog.New(&hclog.LoggerOptions{Name: s.ID, Output: os.Stderr, Level: hclog.Debug})
	config := raft.DefaultConfig()
	config.LocalID = raft.ServerID(s.ID)
	config.Logger = logger
	config.HeartbeatTimeout = seconds(s.Timeout)
	config.ElectionTimeout = seconds(s.Timeout)
	config.LeaderLeaseTimeout = seconds(s.Timeout)
	config.CommitTimeout = seconds(s.CommitTimeout)
	config.SnapshotInterval = seconds(s.SnapshotInterval)
	config.SnapshotThreshold = s.SnapshotThreshold
	config.TrailingLogs = s.TrailingLogs
	config.MaxAppendEntries = s.MaxAppendEntries
	config.BatchApplyCh = true
	config.PreVoteDisabled = !s.PreVote

	logs, stable, err := openStore(s)
	if err != nil {
		return nil, err
	}
	snapshots, err := raft.NewFileSnapshotStoreWithLogger(s.Path, 2, logger)
	if err != nil {
		return nil, err
	}
	carrier, err := openTransport(s, logger)
	if err != nil {
		return nil, err
	}
	state := &chain{}
	node, err := raft.NewRaft(config, state, logs, stable, snapshots, carrier)
	if err != nil {
		return nil, err
	}
	return &server{node, state, carrier, logs}, nil
}

func openStore(s settings) (raft.LogStore, raft.StableStore, error) {
	if err := os.MkdirAll(s.Path, 0o755); err != nil {
		return nil, nil, err
	}
	switch s.Store {
	case "boltdb":
		store, err := boltdb.New(boltdb.Options{Path: filepath.Join(s.Path, "raft.db")})
		return store, store, err
	case "wal":
		store, err := wal.Open(s.Path)
		return store, store, err
	case "inmem":
		store := raft.NewInmemStore()
		return store, store, nil
	}
	return nil, nil, fmt.Errorf("there is no store %q", s.Store)
}

func openTransport(s settings, logger hclog.Logger) (raft.Transport, error) {
	advertise, err := net.ResolveTCPAddr("tcp", s.Advertise)
	if err != nil {
		return nil, err
	}
	switch s.Transport {
	case "tcp":
		inFlight := 0 // as the library chooses
		if !s.Pipeline {
			inFlight = 1
		}
		return raft.NewTCPTransportWithConfig(s.Bind, advertise, &raft.NetworkTransportConfig{
			Logger: logger, MaxPool: 3, MaxRPCsInFlight: inFlight, Timeout: 5 * time.Second,
		})
	case "grpc":
		return openGrpc(s)
	}
	return nil, fmt.Errorf("there is no transport %q", s.Transport)
}

func openGrpc(s settings) (raft.Transport, error) {
	listener, err := net.Listen("tcp", s.Bind)
	if err != nil {
		return nil, err
	}
	// The library's own limit of 4 MiB for a message stays; its wait of up to two minutes before a
	// server that was away is dialled again does not.
	again := backoff.Config{BaseDelay: 50 * time.Millisecond, Multiplier: 1.6, Jitter: 0.2, MaxDelay: 500 * time.Millisecond}
	manager := transport.New(raft.ServerAddress(s.Advertise), []grpc.DialOption{
		grpc.WithInsecure(),
		grpc.WithConnectParams(grpc.ConnectParams{Backoff: again, MinConnectTimeout: 2 * time.Second}),
	}, transport.WithHeartbeatTimeout(seconds(s.Timeout)))
	serving := grpc.NewServer()
	manager.Register(serving)
	go serving.Serve(listener)
	return manager.Transport(), nil
}

func seconds(s float64) time.Duration {
	return time.Duration(s * float64(time.Second))
}
