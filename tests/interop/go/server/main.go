// A hashicorp/raft server for the tests of tests/interop: its settings are the argument, in JSON; it
// takes orders on standard input, one JSON object a line, and answers on standard output in whatever
// order they are done:
//
//	{"n": 7, "do": "apply", "with": {"prefix": "a", "size": 1}}
//	{"n": 7, "ok": {"index": 4, "response": 1}}
//	{"n": 7, "error": "node is not the leader", "outcome": "refused"}
//
// It ends when its standard input does.
package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os"
	"sync"
)

type order struct {
	N    uint64    `json:"n"`
	Do   string    `json:"do"`
	With arguments `json:"with"`
}

type answer struct {
	N       uint64      `json:"n"`
	OK      interface{} `json:"ok"`
	Error   string      `json:"error,omitempty"`
	Outcome string      `json:"outcome,omitempty"`
}

func main() {
	var s settings
	if err := json.Unmarshal([]byte(os.Args[1]), &s); err != nil {
		panic(err)
	}
	running, err := open(s)
	if err != nil {
		fmt.Fprintln(os.Stderr, "cannot start:", err)
		os.Exit(1)
	}
	var mutex sync.Mutex
	say := func(a answer) {
		mutex.Lock()
		defer mutex.Unlock()
		if err := json.NewEncoder(os.Stdout).Encode(a); err != nil {
			panic(err)
		}
	}
	say(answer{OK: "ready"})
	lines := bufio.NewReader(os.Stdin)
	for {
		line, err := lines.ReadBytes('\n')
		if err != nil {
			return
		}
		var o order
		if err := json.Unmarshal(line, &o); err != nil {
			panic(err)
		}
		go func() { say(obey(running, o)) }()
	}
}

func obey(s *server, o order) answer {
	do, known := orders[o.Do]
	if !known {
		return answer{N: o.N, Error: "there is no order " + o.Do, Outcome: "other"}
	}
	result, err := do(s, o.With)
	if err != nil {
		return answer{N: o.N, Error: err.Error(), Outcome: outcome(err)}
	}
	return answer{N: o.N, OK: result}
}
