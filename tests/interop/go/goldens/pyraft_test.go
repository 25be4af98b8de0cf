package main

import (
	"bytes"
	"encoding/hex"
	"os"
	"reflect"
	"strings"
	"testing"

	"github.com/hashicorp/go-msgpack/v2/codec"
	"google.golang.org/protobuf/proto"
)

func TestGoldenFilesAreWhatThisProgramPrints(t *testing.T) {
	for name, write := range map[string]func(*bytes.Buffer){
		"golden_grpc.txt":     func(out *bytes.Buffer) { writeGRPC(out) },
		"golden_tcp_full.txt": func(out *bytes.Buffer) { writeTCP(out) },
	} {
		stored, err := os.ReadFile("../../../transport/" + name)
		if err != nil {
			t.Fatal(err)
		}
		var printed bytes.Buffer
		write(&printed)
		if !bytes.Equal(stored, printed.Bytes()) {
			t.Errorf("%s is not what this program prints", name)
		}
	}
}

// Lines "name hex" in the file that the environment variable names.
func fromPython(t *testing.T, variable string) map[string][]byte {
	path := os.Getenv(variable)
	if path == "" {
		t.Skip(variable + " names no file: tests/interop/test_goldens.py writes one")
	}
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	messages := map[string][]byte{}
	for _, line := range strings.Split(strings.TrimSpace(string(text)), "\n") {
		name, digits, _ := strings.Cut(line, " ")
		data, err := hex.DecodeString(digits)
		if err != nil {
			t.Fatal(err)
		}
		messages[name] = data
	}
	return messages
}

func TestGoReadsWhatPythonWritesForGRPC(t *testing.T) {
	python := fromPython(t, "PYRAFT_GRPC")
	everyGRPC(func(name string, expected proto.Message) {
		data, written := python[name]
		delete(python, name)
		if !written {
			return
		}
		got := proto.Clone(expected)
		proto.Reset(got)
		if err := (proto.UnmarshalOptions{}).Unmarshal(data, got); err != nil {
			t.Errorf("%s: %v", name, err)
		} else if !proto.Equal(got, expected) {
			t.Errorf("%s: got %v, expected %v", name, got, expected)
		} else if len(got.ProtoReflect().GetUnknown()) > 0 {
			t.Errorf("%s: has fields that Go does not know", name)
		}
	})
	for name := range python {
		t.Errorf("%s is no message that we know", name)
	}
}

func TestGoReadsWhatPythonWritesForTCP(t *testing.T) {
	python := fromPython(t, "PYRAFT_TCP")
	for _, message := range tcpMessages() {
		data, written := python[message.name]
		if !written {
			t.Errorf("%s was not written", message.name)
			continue
		}
		// As NetworkTransport does.
		if err := codec.NewDecoder(bytes.NewReader(data), &codec.MsgpackHandle{}).Decode(message.empty); err != nil {
			t.Errorf("%s: %v", message.name, err)
		} else if !reflect.DeepEqual(message.empty, message.value) {
			t.Errorf("%s: got %+v, expected %+v", message.name, message.empty, message.value)
		}
	}
}
