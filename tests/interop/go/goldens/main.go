// Prints the bytes that Go servers put on the wire for every message of a transport: one line
// "name hex" per message.  Regenerate the golden files with
//
//	cd tests/interop/go/goldens && go run . > ../../../transport/golden_grpc.txt
//	cd tests/interop/go/goldens && go run . tcp > ../../../transport/golden_tcp_full.txt
//
// go test checks that the golden files are what this prints, and reads the bytes that Python
// wrote for the same messages: see pyraft_test.go.
package main

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"io"
	"math"
	"os"
	"time"

	pb "github.com/Jille/raft-grpc-transport/proto"
	"github.com/hashicorp/go-msgpack/v2/codec"
	"github.com/hashicorp/raft"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"
)

const header = `# Bytes of the gRPC transport's messages, as the Go library writes them.
# Made by: cd tests/interop/go/goldens && go run . > ../../../transport/golden_grpc.txt
# github.com/Jille/raft-grpc-transport v1.6.1, github.com/hashicorp/raft v1.7.3
# Each line: name, hexadecimal bytes ("-" = no bytes).`

func writeGRPC(out io.Writer) {
	fmt.Fprintln(out, header)
	everyGRPC(func(name string, message proto.Message) {
		encoded, err := proto.MarshalOptions{Deterministic: true}.Marshal(message)
		if err != nil {
			panic(err)
		}
		text := hex.EncodeToString(encoded)
		if text == "" {
			text = "-"
		}
		fmt.Fprintln(out, name, text)
	})
}

func main() {
	if len(os.Args) > 1 && os.Args[1] == "tcp" {
		writeTCP(os.Stdout)
	} else {
		writeGRPC(os.Stdout)
	}
}

// What raft.encodePeers, which is not exported, does.
func encodePeers(configuration raft.Configuration, transport raft.Transport) []byte {
	peers := [][]byte{}
	for _, server := range configuration.Servers {
		if server.Suffrage == raft.Voter {
			peers = append(peers, transport.EncodePeer(server.ID, server.Address))
		}
	}
	var encoded bytes.Buffer
	if err := codec.NewEncoder(&encoded, &codec.MsgpackHandle{}).Encode(peers); err != nil {
		panic(err)
	}
	return encoded.Bytes()
}

func everyGRPC(show func(name string, message proto.Message)) {
	rpcHeader := &pb.RPCHeader{
		ProtocolVersion: int64(raft.ProtocolVersionMax),
		Id:              []byte("n1"),
		Addr:            []byte("10.0.0.1:7000"),
	}
	empty := &pb.RPCHeader{}
	sender := rpcHeader.Addr
	appendedAt := timestamppb.New(time.Date(2024, 5, 6, 7, 8, 9, 123456789, time.UTC))
	zeroTime := timestamppb.New(time.Time{})

	logs := []*pb.Log{
		{Index: 7, Term: 2, Type: pb.Log_LOG_COMMAND, Data: []byte("hello"), Extensions: []byte{1, 2}, AppendedAt: appendedAt},
		{Index: 8, Term: 3, Type: pb.Log_LOG_NOOP, AppendedAt: zeroTime},
		{Index: 9, Term: 3, Type: pb.Log_LOG_ADD_PEER_DEPRECATED, Data: []byte{0x90}, AppendedAt: appendedAt},
		{Index: 10, Term: 3, Type: pb.Log_LOG_REMOVE_PEER_DEPRECATED, Data: []byte{0x90}, AppendedAt: appendedAt},
		{Index: 11, Term: 3, Type: pb.Log_LOG_BARRIER, AppendedAt: appendedAt},
		{Index: 300, Term: math.MaxUint64, Type: pb.Log_LOG_CONFIGURATION, Data: make([]byte, 200)},
		{},
	}
	for i, name := range []string{"command", "noop", "add_peer", "remove_peer", "barrier", "configuration", "zero"} {
		show("log_"+name, logs[i])
	}

	show("append_entries_request", &pb.AppendEntriesRequest{
		RpcHeader: rpcHeader, Term: 3, Leader: sender, PrevLogEntry: 6, PrevLogTerm: 2, Entries: logs, LeaderCommitIndex: 5,
	})
	show("append_entries_request_large", &pb.AppendEntriesRequest{
		RpcHeader: rpcHeader, Term: math.MaxUint64, Leader: sender, PrevLogEntry: math.MaxUint64, PrevLogTerm: 1 << 32,
		Entries: logs[:1], LeaderCommitIndex: math.MaxUint64,
	})
	show("append_entries_request_heartbeat", &pb.AppendEntriesRequest{RpcHeader: rpcHeader, Term: 3, Leader: sender})
	show("append_entries_request_no_entries", &pb.AppendEntriesRequest{
		RpcHeader: rpcHeader, Term: 3, Leader: sender, PrevLogEntry: 6, PrevLogTerm: 2, LeaderCommitIndex: 5,
	})
	show("append_entries_request_defaults", &pb.AppendEntriesRequest{RpcHeader: empty})
	show("append_entries_response", &pb.AppendEntriesResponse{
		RpcHeader: rpcHeader, Term: 3, LastLog: 12, Success: true, NoRetryBackoff: true,
	})
	show("append_entries_response_defaults", &pb.AppendEntriesResponse{RpcHeader: empty})
	show("request_vote_request", &pb.RequestVoteRequest{
		RpcHeader: rpcHeader, Term: 3, Candidate: sender, LastLogIndex: 12, LastLogTerm: 2, LeadershipTransfer: true,
	})
	show("request_vote_request_defaults", &pb.RequestVoteRequest{RpcHeader: empty})
	show("request_vote_response", &pb.RequestVoteResponse{RpcHeader: rpcHeader, Term: 3, Granted: true})
	show("request_vote_response_peers", &pb.RequestVoteResponse{
		RpcHeader: rpcHeader, Term: 3, Peers: []byte{0x90}, Granted: true,
	})
	show("request_vote_response_defaults", &pb.RequestVoteResponse{RpcHeader: empty})
	show("request_pre_vote_request", &pb.RequestPreVoteRequest{
		RpcHeader: rpcHeader, Term: 3, LastLogIndex: 12, LastLogTerm: 2,
	})
	show("request_pre_vote_request_defaults", &pb.RequestPreVoteRequest{RpcHeader: empty})
	show("request_pre_vote_response", &pb.RequestPreVoteResponse{RpcHeader: rpcHeader, Term: 3, Granted: true})
	show("request_pre_vote_response_defaults", &pb.RequestPreVoteResponse{RpcHeader: empty})
	show("timeout_now_request", &pb.TimeoutNowRequest{RpcHeader: rpcHeader})
	show("timeout_now_request_defaults", &pb.TimeoutNowRequest{RpcHeader: empty})
	show("timeout_now_response", &pb.TimeoutNowResponse{RpcHeader: rpcHeader})
	show("timeout_now_response_no_header", &pb.TimeoutNowResponse{})
	show("install_snapshot_request", &pb.InstallSnapshotRequest{
		RpcHeader: rpcHeader, SnapshotVersion: 1, Term: 3, Leader: sender, LastLogIndex: 12, LastLogTerm: 2,
		Peers: []byte{0x90}, Configuration: []byte{0x81}, ConfigurationIndex: 4, Size: 1 << 40,
	})
	configuration := raft.Configuration{Servers: []raft.Server{
		{Suffrage: raft.Voter, ID: "n1", Address: "10.0.0.1:7000"},
		{Suffrage: raft.Nonvoter, ID: "n2", Address: "10.0.0.2:7000"},
		{Suffrage: raft.Voter, ID: "n3", Address: "10.0.0.3:7000"},
	}}
	_, transport := raft.NewInmemTransport(raft.ServerAddress(sender))
	peers := encodePeers(configuration, transport)
	show("install_snapshot_request_full", &pb.InstallSnapshotRequest{
		RpcHeader: rpcHeader, SnapshotVersion: 1, Term: 3, Leader: sender, LastLogIndex: 12, LastLogTerm: 2,
		Peers: peers, Configuration: raft.EncodeConfiguration(configuration), ConfigurationIndex: 4, Size: 1 << 40,
	})
	show("install_snapshot_request_empty", &pb.InstallSnapshotRequest{
		RpcHeader: empty, SnapshotVersion: 1, Peers: encodePeers(raft.Configuration{}, transport),
		Configuration: raft.EncodeConfiguration(raft.Configuration{Servers: []raft.Server{}}),
	})
	show("install_snapshot_request_version_0", &pb.InstallSnapshotRequest{
		RpcHeader: rpcHeader, Term: 3, Leader: sender, LastLogIndex: 12, LastLogTerm: 2, Peers: peers, Size: 7,
	})
	show("install_snapshot_request_data", &pb.InstallSnapshotRequest{Data: []byte("chunk")})
	show("install_snapshot_response", &pb.InstallSnapshotResponse{RpcHeader: rpcHeader, Term: 3, Success: true})
	show("install_snapshot_response_defaults", &pb.InstallSnapshotResponse{RpcHeader: empty})
}
