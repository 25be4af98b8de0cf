package main

import (
	"encoding/json"
	"hash/crc32"
	"io"
	"sync"

	"github.com/hashicorp/raft"
)

// tally counts commands and chains their bytes, so that servers can be compared.
type tally struct {
	lock   sync.Mutex
	count  uint64
	digest uint32
}

func (t *tally) Apply(entry *raft.Log) any {
	t.lock.Lock()
	defer t.lock.Unlock()
	t.count++
	t.digest = crc32.Update(t.digest, crc32.IEEETable, entry.Data)
	return t.count
}

func (t *tally) state() (uint64, uint32) {
	t.lock.Lock()
	defer t.lock.Unlock()
	return t.count, t.digest
}

func (t *tally) Snapshot() (raft.FSMSnapshot, error) {
	count, digest := t.state()
	return &saved{[]uint64{count, uint64(digest)}}, nil
}

func (t *tally) Restore(source io.ReadCloser) error {
	defer source.Close()
	var values []uint64
	if err := json.NewDecoder(source).Decode(&values); err != nil {
		return err
	}
	t.lock.Lock()
	defer t.lock.Unlock()
	t.count, t.digest = values[0], uint32(values[1])
	return nil
}

type saved struct{ values []uint64 }

func (s *saved) Persist(sink raft.SnapshotSink) error {
	if err := json.NewEncoder(sink).Encode(s.values); err != nil {
		_ = sink.Cancel()
		return err
	}
	return sink.Close()
}

func (s *saved) Release() {}
