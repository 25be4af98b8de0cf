// Writes snapshots with hashicorp/raft's FileSnapshotStore, or reads what another program wrote.
// The golden folders are made by
//
//	cd tests/interop/go/goldens && go run ./snapshots write ../../../snapshots/golden
//
// "read DIR" opens every snapshot in DIR and prints one line for each, newest first:
// id, index, term, configuration index, size, servers, the state in hexadecimal.
package main

import (
	"encoding/hex"
	"fmt"
	"io"
	"math"
	"os"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"
)

type snapshot struct {
	index, term        uint64
	configuration      raft.Configuration
	configurationIndex uint64
	state              []byte
}

var snapshots = []snapshot{
	{10, 3, raft.Configuration{Servers: []raft.Server{
		{Suffrage: raft.Voter, ID: "n1", Address: "10.0.0.1:7000"},
		{Suffrage: raft.Voter, ID: "n2", Address: "10.0.0.2:7000"},
		{Suffrage: raft.Nonvoter, ID: "n3", Address: "10.0.0.3:7000"},
		{Suffrage: raft.Staging, ID: "n4", Address: "10.0.0.4:7000"},
	}}, 2, []byte("hello world")},
	{11, 3, raft.Configuration{}, 0, nil},
	{math.MaxUint64, math.MaxUint64, raft.Configuration{Servers: []raft.Server{
		{Suffrage: raft.Voter, ID: "<&>\"\\/'\u2028\u2029\x7f\x00\x01\x1f\b\f\n\r\té€😀", Address: "[::1]:1"},
		{Suffrage: raft.Nonvoter, ID: "", Address: ""},
	}}, math.MaxUint64 - 1, counted(3000)},
}

// counted returns n bytes, none of which is predictable from its neighbours alone.
func counted(n int) []byte {
	state := make([]byte, n)
	for i := range state {
		state[i] = byte(i * i * 31 >> 3)
	}
	return state
}

func main() {
	if len(os.Args) != 3 {
		panic("usage: snapshots write|read DIR")
	}
	store, err := raft.NewFileSnapshotStoreWithLogger(os.Args[2], 100, hclog.NewNullLogger())
	check(err)
	if os.Args[1] == "write" {
		write(store)
	} else {
		read(store)
	}
}

func write(store *raft.FileSnapshotStore) {
	_, transport := raft.NewInmemTransport("")
	for _, s := range snapshots {
		sink, err := store.Create(1, s.index, s.term, s.configuration, s.configurationIndex, transport)
		check(err)
		_, err = sink.Write(s.state)
		check(err)
		check(sink.Close())
	}
}

func read(store *raft.FileSnapshotStore) {
	metas, err := store.List()
	check(err)
	for _, listed := range metas {
		meta, reader, err := store.Open(listed.ID)
		check(err)
		state, err := io.ReadAll(reader)
		check(err)
		check(reader.Close())
		fmt.Printf("%s %d %d %d %d %q %s\n", meta.ID, meta.Index, meta.Term, meta.ConfigurationIndex, meta.Size,
			fmt.Sprint(meta.Configuration.Servers), hex.EncodeToString(state))
	}
}

func check(err error) {
	if err != nil {
		panic(err)
	}
}
