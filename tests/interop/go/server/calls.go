package main

import (
	"bytes"
	"encoding/json"
	"fmt"

	"github.com/hashicorp/raft"
)

// call sends one request of any content to another server, as no sound server would, and returns the response.
func call(s *server, a arguments) (interface{}, error) {
	id, address := raft.ServerID(a.ID), raft.ServerAddress(a.Address)
	switch a.Kind {
	case "append_entries":
		var request raft.AppendEntriesRequest
		var response raft.AppendEntriesResponse
		return answered(a.Request, &request, &response, func() error {
			return s.carrier.AppendEntries(id, address, &request, &response)
		})
	case "request_vote":
		var request raft.RequestVoteRequest
		var response raft.RequestVoteResponse
		return answered(a.Request, &request, &response, func() error {
			return s.carrier.RequestVote(id, address, &request, &response)
		})
	case "timeout_now":
		var request raft.TimeoutNowRequest
		var response raft.TimeoutNowResponse
		return answered(a.Request, &request, &response, func() error {
			return s.carrier.TimeoutNow(id, address, &request, &response)
		})
	case "install_snapshot":
		var request raft.InstallSnapshotRequest
		var response raft.InstallSnapshotResponse
		return answered(a.Request, &request, &response, func() error {
			return s.carrier.InstallSnapshot(id, address, &request, &response, bytes.NewReader(a.State))
		})
	}
	return nil, fmt.Errorf("there is no call %q", a.Kind)
}

func answered(text json.RawMessage, request, response interface{}, send func() error) (interface{}, error) {
	if err := json.Unmarshal(text, request); err != nil {
		return nil, err
	}
	if err := send(); err != nil {
		return nil, err
	}
	return response, nil
}

// encodeConfiguration returns the bytes of a configuration, as they stand in entries and snapshots.
func encodeConfiguration(_ *server, a arguments) (interface{}, error) {
	return raft.EncodeConfiguration(configuration(a.Servers)), nil
}
