// One hashicorp/raft server as a process of its own: the peer that the benchmarks compare with.
//
// It takes orders on standard input and answers on standard output, one JSON object per line,
// exactly as benchmarks/server.py does; it ends when its input does.
package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os"
	"runtime"
	"runtime/debug"
	"time"
)

type order struct {
	Do   string          `json:"do"`
	With json.RawMessage `json:"with"`
}

func main() {
	if len(os.Args) == 2 && os.Args[1] == "versions" {
		answer(versions(), nil)
		return
	}
	var given settings
	if err := json.Unmarshal([]byte(os.Args[1]), &given); err != nil {
		fatal(err)
	}
	node, err := open(given)
	if err != nil {
		fatal(err)
	}
	if err := node.waitForLeader(30 * time.Second); err != nil {
		fatal(err)
	}
	answer(map[string]any{"library": "hashicorp/raft"}, nil)
	lines := bufio.NewScanner(os.Stdin)
	lines.Buffer(make([]byte, 1<<16), 1<<20)
	for lines.Scan() {
		var next order
		if err := json.Unmarshal(lines.Bytes(), &next); err != nil {
			fatal(err)
		}
		answer(node.obey(next))
	}
	node.close()
}

// answer prints one line: what an order returned, or what went wrong.
func answer(result any, err error) {
	line := map[string]any{"ok": result}
	if err != nil {
		line = map[string]any{"error": err.Error()}
	}
	text, err := json.Marshal(line)
	if err != nil {
		fatal(err)
	}
	fmt.Println(string(text))
}

func versions() map[string]string {
	found := map[string]string{"go": runtime.Version()}
	info, ok := debug.ReadBuildInfo()
	if ok {
		for _, module := range info.Deps {
			found[module.Path] = module.Version
		}
	}
	return found
}

func fatal(err error) {
	fmt.Fprintln(os.Stderr, err)
	os.Exit(1)
}
