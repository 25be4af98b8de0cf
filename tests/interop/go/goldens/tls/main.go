// A hashicorp/raft NetworkTransport over crypto/tls: calls the server whose address it is given,
// and serves calls until its standard input ends.
//
//	tls <directory with cert.pem, key.pem, ca.pem> <address>
package main

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"log"
	"net"
	"os"
	"path/filepath"
	"time"

	"github.com/hashicorp/raft"
)

type layer struct {
	net.Listener
	config *tls.Config
}

func (l layer) Dial(address raft.ServerAddress, timeout time.Duration) (net.Conn, error) {
	return tls.DialWithDialer(&net.Dialer{Timeout: timeout}, "tcp", string(address), l.config)
}

func must[T any](value T, err error) T {
	if err != nil {
		log.Fatal(err)
	}
	return value
}

func material(home string) *tls.Config {
	authority := x509.NewCertPool()
	authority.AppendCertsFromPEM(must(os.ReadFile(filepath.Join(home, "ca.pem"))))
	pair := must(tls.LoadX509KeyPair(filepath.Join(home, "cert.pem"), filepath.Join(home, "key.pem")))
	return &tls.Config{
		Certificates: []tls.Certificate{pair},
		RootCAs:      authority,
		ClientCAs:    authority,
		ClientAuth:   tls.RequireAndVerifyClientCert,
	}
}

func serve(transport *raft.NetworkTransport) {
	for rpc := range transport.Consumer() {
		switch asked := rpc.Command.(type) {
		case *raft.RequestVoteRequest:
			rpc.Respond(&raft.RequestVoteResponse{RPCHeader: asked.RPCHeader, Term: asked.Term, Granted: true}, nil)
		case *raft.AppendEntriesRequest:
			rpc.Respond(&raft.AppendEntriesResponse{
				RPCHeader: asked.RPCHeader, Term: asked.Term, LastLog: uint64(len(asked.Entries)), Success: true,
			}, nil)
		case *raft.InstallSnapshotRequest:
			size, err := io.Copy(io.Discard, rpc.Reader)
			rpc.Respond(&raft.InstallSnapshotResponse{Term: asked.Term, Success: err == nil && size == asked.Size}, nil)
		default:
			rpc.Respond(nil, fmt.Errorf("unexpected command"))
		}
	}
}

func main() {
	config, peer := material(os.Args[1]), raft.ServerAddress(os.Args[2])
	listener := must(tls.Listen("tcp", "127.0.0.1:0", config))
	transport := raft.NewNetworkTransport(layer{listener, config}, 3, 30*time.Second, io.Discard)
	go serve(transport)

	header := raft.RPCHeader{ProtocolVersion: 3, ID: []byte("go"), Addr: []byte(transport.LocalAddr())}
	var vote raft.RequestVoteResponse
	asked := &raft.RequestVoteRequest{RPCHeader: header, Term: 7, LastLogIndex: 3, LastLogTerm: 2}
	if err := transport.RequestVote("b", peer, asked, &vote); err != nil {
		fmt.Println("refused", err)
	} else {
		var installed raft.InstallSnapshotResponse
		state := bytes.Repeat([]byte("state"), 200_000)
		offer := &raft.InstallSnapshotRequest{
			RPCHeader: header, SnapshotVersion: 1, Term: 7, LastLogIndex: 3, LastLogTerm: 2, Size: int64(len(state)),
			Configuration: raft.EncodeConfiguration(raft.Configuration{Servers: []raft.Server{{ID: "go", Address: "a:1"}}}),
		}
		err := transport.InstallSnapshot("b", peer, offer, &installed, bytes.NewReader(state))
		fmt.Println("granted", vote.Granted, "installed", installed.Success, err)
	}
	fmt.Println("at", transport.LocalAddr())
	bufio.NewReader(os.Stdin).ReadString('\n')
}
