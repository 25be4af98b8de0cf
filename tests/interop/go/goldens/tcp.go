package main

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"io"
	"math"
	"time"

	"github.com/hashicorp/go-msgpack/v2/codec"
	"github.com/hashicorp/raft"
)

const tcpHeader = `# Bytes of the TCP transport's messages with every field filled, as the Go library writes them.
# Made by: cd tests/interop/go/goldens && go run . tcp > ../../../transport/golden_tcp_full.txt
# github.com/hashicorp/raft v1.7.3, github.com/hashicorp/go-msgpack/v2 v2.1.2
# Each line: name, hexadecimal bytes: of a request without the byte of its type, of an answer without its error.`

// A message, and an empty one of its type to decode into.
type tcpMessage struct {
	name  string
	value any
	empty any
}

func tcpMessages() []tcpMessage {
	header := raft.RPCHeader{ProtocolVersion: 3, ID: []byte("n1"), Addr: []byte("10.0.0.1:7000")}
	largest := raft.RPCHeader{ProtocolVersion: 127, ID: []byte("a server's name"), Addr: bytes.Repeat([]byte("h"), 300)}
	sender, large := header.Addr, uint64(math.MaxUint64)
	at := time.Date(2024, 5, 6, 7, 8, 9, 123456789, time.UTC)
	configuration := raft.EncodeConfiguration(raft.Configuration{Servers: []raft.Server{
		{Suffrage: raft.Voter, ID: "n1", Address: "10.0.0.1:7000"},
		{Suffrage: raft.Nonvoter, ID: "n2", Address: "10.0.0.2:7000"},
		{Suffrage: raft.Voter, ID: "n3", Address: "10.0.0.3:7000"},
	}})
	var logs []*raft.Log
	for kind := raft.LogCommand; kind <= raft.LogConfiguration; kind++ {
		logs = append(logs, &raft.Log{
			Index: 7 + uint64(kind), Term: 2, Type: kind, Data: []byte("hello"), Extensions: []byte{1, 2}, AppendedAt: at,
		})
	}
	logs = append(logs,
		&raft.Log{Index: large, Term: large, Data: bytes.Repeat([]byte("d"), 300), Extensions: bytes.Repeat([]byte("e"), 300), AppendedAt: at},
		&raft.Log{Index: 1 << 32, Term: 1 << 16, Type: raft.LogNoop},
	)
	return []tcpMessage{
		{"append_entries_request", &raft.AppendEntriesRequest{
			RPCHeader: header, Term: 3, Leader: sender, PrevLogEntry: 6, PrevLogTerm: 2, Entries: logs, LeaderCommitIndex: 5,
		}, &raft.AppendEntriesRequest{}},
		{"append_entries_request_largest", &raft.AppendEntriesRequest{
			RPCHeader: largest, Term: large, Leader: largest.Addr, PrevLogEntry: large, PrevLogTerm: 1 << 32,
			Entries: logs[:1], LeaderCommitIndex: large,
		}, &raft.AppendEntriesRequest{}},
		{"append_entries_response", &raft.AppendEntriesResponse{
			RPCHeader: header, Term: 3, LastLog: 12, Success: true, NoRetryBackoff: true,
		}, &raft.AppendEntriesResponse{}},
		{"append_entries_response_largest", &raft.AppendEntriesResponse{RPCHeader: largest, Term: large, LastLog: large},
			&raft.AppendEntriesResponse{}},
		{"request_vote_request", &raft.RequestVoteRequest{
			RPCHeader: header, Term: 3, Candidate: sender, LastLogIndex: 12, LastLogTerm: 2, LeadershipTransfer: true,
		}, &raft.RequestVoteRequest{}},
		{"request_vote_response", &raft.RequestVoteResponse{RPCHeader: header, Term: 3, Granted: true}, &raft.RequestVoteResponse{}},
		{"request_pre_vote_request", &raft.RequestPreVoteRequest{
			RPCHeader: header, Term: 3, LastLogIndex: 12, LastLogTerm: 2,
		}, &raft.RequestPreVoteRequest{}},
		{"request_pre_vote_response", &raft.RequestPreVoteResponse{RPCHeader: header, Term: 3, Granted: true},
			&raft.RequestPreVoteResponse{}},
		{"timeout_now_request", &raft.TimeoutNowRequest{RPCHeader: header}, &raft.TimeoutNowRequest{}},
		{"timeout_now_response", &raft.TimeoutNowResponse{RPCHeader: header}, &raft.TimeoutNowResponse{}},
		{"install_snapshot_request", &raft.InstallSnapshotRequest{
			RPCHeader: header, SnapshotVersion: 1, Term: 3, Leader: sender, LastLogIndex: 12, LastLogTerm: 2,
			Peers: encoded([][]byte{sender, []byte("10.0.0.3:7000")}), Configuration: configuration,
			ConfigurationIndex: 4, Size: 1 << 40,
		}, &raft.InstallSnapshotRequest{}},
		{"install_snapshot_response", &raft.InstallSnapshotResponse{RPCHeader: header, Term: 3, Success: true},
			&raft.InstallSnapshotResponse{}},
	}
}

func encoded(value any) []byte {
	var out bytes.Buffer
	// As NetworkTransport does by default.
	handle := &codec.MsgpackHandle{BasicHandle: codec.BasicHandle{TimeNotBuiltin: true}}
	if err := codec.NewEncoder(&out, handle).Encode(value); err != nil {
		panic(err)
	}
	return out.Bytes()
}

func writeTCP(out io.Writer) {
	fmt.Fprintln(out, tcpHeader)
	for _, message := range tcpMessages() {
		fmt.Fprintln(out, message.name, hex.EncodeToString(encoded(message.value)))
	}
}
