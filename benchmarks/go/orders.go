package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/hashicorp/raft"
)

// obey does what an order says; the names are those of the methods of Orders in server.py.
func (n *node) obey(next order) (any, error) {
	switch next.Do {
	case "who_leads":
		if _, id := n.raft.LeaderWithID(); id != "" {
			return string(id), nil
		}
		return nil, nil
	case "last_index":
		if err := n.raft.Barrier(time.Minute).Error(); err != nil {
			return nil, err
		}
		return n.raft.LastIndex(), nil
	case "applied":
		var with struct {
			Index   uint64  `json:"index"`
			Seconds float64 `json:"seconds"`
		}
		if err := json.Unmarshal(next.With, &with); err != nil {
			return nil, err
		}
		return n.applied(with.Index, seconds(with.Seconds))
	case "snapshot":
		return nil, n.raft.Snapshot().Error()
	case "write_when_leading":
		var with struct {
			Dead    string  `json:"dead"`
			Seconds float64 `json:"seconds"`
		}
		if err := json.Unmarshal(next.With, &with); err != nil {
			return nil, err
		}
		return n.writeWhenLeading(with.Dead, seconds(with.Seconds))
	case "run":
		var with work
		if err := json.Unmarshal(next.With, &with); err != nil {
			return nil, err
		}
		return n.run(with)
	}
	return nil, fmt.Errorf("unsupported: %s", next.Do)
}

func seconds(number float64) time.Duration {
	return time.Duration(number * float64(time.Second))
}

// applied waits until everything up to index has been applied here, and says what the state is.
func (n *node) applied(index uint64, limit time.Duration) (any, error) {
	for end := time.Now().Add(limit); n.raft.AppliedIndex() < index; time.Sleep(2 * time.Millisecond) {
		if time.Now().After(end) {
			return nil, fmt.Errorf("applied %d of %d in time", n.raft.AppliedIndex(), index)
		}
	}
	// AppliedIndex runs ahead of the FSM by what is queued for it: the state is final once it rests.
	count, digest := n.fsm.state()
	for rest := 0; rest < 5; time.Sleep(2 * time.Millisecond) {
		now, other := n.fsm.state()
		if now != count || other != digest {
			count, digest, rest = now, other, 0
		} else {
			rest++
		}
	}
	return map[string]any{"count": count, "digest": digest}, nil
}

// writeWhenLeading tries to write until a write is acknowledged here (true), or another server
// than the dead one leads (false).
func (n *node) writeWhenLeading(dead string, limit time.Duration) (any, error) {
	for end := time.Now().Add(limit); time.Now().Before(end); time.Sleep(2 * time.Millisecond) {
		if n.raft.State() == raft.Leader {
			if err := n.raft.Apply(newCommands(1<<40, 128).next(), time.Second).Error(); err == nil {
				return true, nil
			}
			continue
		}
		_, leader := n.raft.LeaderWithID()
		if string(leader) != "" && string(leader) != dead && string(leader) != n.id {
			return false, nil
		}
	}
	return nil, errors.New("nobody leads in time")
}
