package main

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"io"
	"sync"

	"github.com/hashicorp/raft"
)

// chain keeps every command in order, and a digest over all of them: the same state machine as
// Chain in tests/interop/server.py.  A snapshot holds each command behind its length in four bytes,
// big-endian.
type chain struct {
	mutex    sync.Mutex
	index    uint64
	commands [][]byte
	digest   [sha256.Size]byte
}

func (c *chain) Apply(log *raft.Log) interface{} {
	c.mutex.Lock()
	defer c.mutex.Unlock()
	c.index = log.Index
	c.add(log.Data)
	return len(c.commands)
}

func (c *chain) add(command []byte) {
	c.commands = append(c.commands, command)
	hash := sha256.New()
	hash.Write(c.digest[:])
	hash.Write(command)
	hash.Sum(c.digest[:0])
}

func (c *chain) Snapshot() (raft.FSMSnapshot, error) {
	c.mutex.Lock()
	defer c.mutex.Unlock()
	return captured(c.commands[:len(c.commands):len(c.commands)]), nil
}

func (c *chain) Restore(source io.ReadCloser) error {
	defer source.Close()
	reader := bufio.NewReader(source)
	var restored chain
	for {
		var length uint32
		if err := binary.Read(reader, binary.BigEndian, &length); err == io.EOF {
			break
		} else if err != nil {
			return err
		}
		command := make([]byte, length)
		if _, err := io.ReadFull(reader, command); err != nil {
			return err
		}
		restored.add(command)
	}
	c.mutex.Lock()
	defer c.mutex.Unlock()
	c.commands, c.digest = restored.commands, restored.digest
	return nil
}

func (c *chain) describe() (count int, digest string) {
	c.mutex.Lock()
	defer c.mutex.Unlock()
	return len(c.commands), hex.EncodeToString(c.digest[:])
}

// starting returns the commands that begin with prefix, in the order in which they were applied.
func (c *chain) starting(prefix string) []string {
	c.mutex.Lock()
	defer c.mutex.Unlock()
	found := []string{}
	for _, command := range c.commands {
		if bytes.HasPrefix(command, []byte(prefix)) {
			found = append(found, string(command))
		}
	}
	return found
}

type captured [][]byte

func (s captured) Persist(sink raft.SnapshotSink) error {
	writer := bufio.NewWriter(sink)
	for _, command := range s {
		if err := binary.Write(writer, binary.BigEndian, uint32(len(command))); err != nil {
			return cancel(sink, err)
		}
		if _, err := writer.Write(command); err != nil {
			return cancel(sink, err)
		}
	}
	if err := writer.Flush(); err != nil {
		return cancel(sink, err)
	}
	return sink.Close()
}

func (s captured) Release() {}

func cancel(sink raft.SnapshotSink, err error) error {
	sink.Cancel()
	return err
}
