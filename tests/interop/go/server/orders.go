package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/hashicorp/raft"
)

// orders are what the tests may ask of a server, by name; tests/interop/server.py has the same.
var orders = map[string]func(*server, arguments) (interface{}, error){
	"bootstrap":    bootstrap,
	"status":       status,
	"apply":        apply,
	"write":        write,
	"barrier":      barrier,
	"verify":       verify,
	"snapshot":     snapshot,
	"add_voter":    addVoter,
	"add_nonvoter": addNonvoter,
	"demote":       demote,
	"remove":       remove,
	"transfer":     transfer,
	"commands":     commands,
	"shutdown":     shutdown,
	// For the Go server alone:
	"call":                 call,
	"encode_configuration": encodeConfiguration,
}

type arguments struct {
	Servers []member `json:"servers"`
	ID      string   `json:"id"`
	Address string   `json:"address"`
	Prefix  string   `json:"prefix"`
	Size    int      `json:"size"`
	Count   int      `json:"count"`

	Kind    string          `json:"kind"`
	Request json.RawMessage `json:"request"`
	State   []byte          `json:"state"`
}

type member struct {
	ID       string `json:"id"`
	Address  string `json:"address"`
	Suffrage string `json:"suffrage"` // Voter, Nonvoter
}

// patience bounds what waits for room in a queue; the tests have their own for the rest.
const patience = 20 * time.Second

func bootstrap(s *server, a arguments) (interface{}, error) {
	return nil, s.raft.BootstrapCluster(configuration(a.Servers)).Error()
}

func configuration(members []member) raft.Configuration {
	var found raft.Configuration
	for _, m := range members {
		suffrage := raft.Voter
		if m.Suffrage == raft.Nonvoter.String() {
			suffrage = raft.Nonvoter
		}
		found.Servers = append(found.Servers,
			raft.Server{Suffrage: suffrage, ID: raft.ServerID(m.ID), Address: raft.ServerAddress(m.Address)})
	}
	return found
}

func status(s *server, _ arguments) (interface{}, error) {
	_, leader := s.raft.LeaderWithID()
	current := s.raft.GetConfiguration()
	if err := current.Error(); err != nil {
		return nil, err
	}
	members := []member{}
	for _, m := range current.Configuration().Servers {
		members = append(members, member{string(m.ID), string(m.Address), m.Suffrage.String()})
	}
	stats := s.raft.Stats()
	count, digest := s.chain.describe()
	return map[string]interface{}{
		"state": s.raft.State().String(), "leader": string(leader), "term": json.Number(stats["term"]),
		"last_index": s.raft.LastIndex(), "commit_index": s.raft.CommitIndex(),
		"snapshot_index": json.Number(stats["last_snapshot_index"]), "members": members,
		"count": count, "digest": digest,
	}, nil
}

// apply has one command of a.Size bytes applied, which begins with a.Prefix as far as that fits.
func apply(s *server, a arguments) (interface{}, error) {
	command := make([]byte, a.Size)
	copy(command, a.Prefix)
	future := s.raft.Apply(command, patience)
	if err := future.Error(); err != nil {
		return nil, err
	}
	return map[string]interface{}{"index": future.Index(), "response": future.Response()}, nil
}

// write has the commands Prefix0, Prefix1, … applied without waiting in between, and says how many were.
func write(s *server, a arguments) (interface{}, error) {
	futures := make([]raft.ApplyFuture, a.Count)
	for i := range futures {
		futures[i] = s.raft.Apply([]byte(fmt.Sprintf("%s%d", a.Prefix, i)), patience)
	}
	acknowledged := 0
	var last error
	for _, future := range futures {
		if err := future.Error(); err != nil {
			last = err
		} else {
			acknowledged++
		}
	}
	if acknowledged == 0 && last != nil {
		return nil, last
	}
	return acknowledged, nil
}

func barrier(s *server, _ arguments) (interface{}, error) {
	return nil, s.raft.Barrier(patience).Error()
}

func verify(s *server, _ arguments) (interface{}, error) {
	return nil, s.raft.VerifyLeader().Error()
}

func snapshot(s *server, _ arguments) (interface{}, error) {
	future := s.raft.Snapshot()
	if err := future.Error(); err != nil {
		return nil, err
	}
	meta, reader, err := future.Open()
	if err != nil {
		return nil, err
	}
	return meta.Index, reader.Close()
}

func addVoter(s *server, a arguments) (interface{}, error) {
	return changed(s.raft.AddVoter(raft.ServerID(a.ID), raft.ServerAddress(a.Address), 0, patience))
}

func addNonvoter(s *server, a arguments) (interface{}, error) {
	return changed(s.raft.AddNonvoter(raft.ServerID(a.ID), raft.ServerAddress(a.Address), 0, patience))
}

func demote(s *server, a arguments) (interface{}, error) {
	return changed(s.raft.DemoteVoter(raft.ServerID(a.ID), 0, patience))
}

func remove(s *server, a arguments) (interface{}, error) {
	return changed(s.raft.RemoveServer(raft.ServerID(a.ID), 0, patience))
}

func changed(future raft.IndexFuture) (interface{}, error) {
	if err := future.Error(); err != nil {
		return nil, err
	}
	return future.Index(), nil
}

func transfer(s *server, a arguments) (interface{}, error) {
	if a.ID == "" {
		return nil, s.raft.LeadershipTransfer().Error()
	}
	return nil, s.raft.LeadershipTransferToServer(raft.ServerID(a.ID), raft.ServerAddress(a.Address)).Error()
}

func commands(s *server, a arguments) (interface{}, error) {
	return s.chain.starting(a.Prefix), nil
}

func shutdown(s *server, _ arguments) (interface{}, error) {
	if err := s.raft.Shutdown().Error(); err != nil {
		return nil, err
	}
	if store, closes := s.store.(io.Closer); closes {
		return nil, store.Close()
	}
	return nil, nil
}

// outcome says what an error means for a command: "refused" is in nobody's log, "unknown" may be applied yet.
func outcome(err error) string {
	for _, refusal := range []error{raft.ErrNotLeader, raft.ErrEnqueueTimeout, raft.ErrLeadershipTransferInProgress} {
		if errors.Is(err, refusal) {
			return "refused"
		}
	}
	for _, doubt := range []error{raft.ErrLeadershipLost, raft.ErrAbortedByRestore, raft.ErrRaftShutdown} {
		if errors.Is(err, doubt) {
			return "unknown"
		}
	}
	return "other"
}
