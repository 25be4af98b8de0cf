package main

import (
	"encoding/binary"
	"fmt"
	"math"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// work is one load, as it runs inside the leader's process; workloads.py has the same ones.
type work struct {
	Workload  string  `json:"workload"`
	Size      int     `json:"size"`
	Seconds   float64 `json:"seconds"`
	WarmUp    float64 `json:"warm_up"`
	Clients   int     `json:"clients"`
	Window    int     `json:"window"`
	Count     int     `json:"count"`
	Operation string  `json:"operation"`
	Busy      bool    `json:"busy"`
}

type figures map[string]float64

func (n *node) run(with work) (figures, error) {
	if with.Operation == "" {
		with.Operation = "apply"
	}
	switch with.Workload {
	case "clients":
		return n.clients(with)
	case "outstanding":
		return n.outstanding(with)
	case "fill":
		return n.fill(with)
	}
	return nil, fmt.Errorf("unsupported: %s", with.Workload)
}

// commands makes distinct commands, so that a lost, doubled or exchanged one shows in the digest.
type commands struct {
	client, number uint64
	size           int
}

func newCommands(client uint64, size int) *commands {
	return &commands{client: client, size: size}
}

func (c *commands) next() []byte {
	command := make([]byte, c.size) // the library keeps it, so each has its own
	binary.BigEndian.PutUint64(command, c.client)
	binary.BigEndian.PutUint64(command[8:], c.number)
	c.number++
	return command
}

// operation returns what one client does again and again.
func (n *node) operation(name string, client uint64, size int) (func() error, error) {
	own := newCommands(client, size)
	switch name {
	case "apply":
		return func() error { return n.raft.Apply(own.next(), 0).Error() }, nil
	case "verify_leader":
		return func() error { return n.raft.VerifyLeader().Error() }, nil
	}
	return nil, fmt.Errorf("unsupported: %s", name)
}

type client struct {
	_     [64]byte // each on a cache line of its own
	count atomic.Uint64
	took  []time.Duration
	err   error
}

// clients lets goroutines each wait for their own operation; one of them is the latency test.
func (n *node) clients(with work) (figures, error) {
	if with.Busy {
		stop := burn()
		defer stop()
	}
	all := make([]client, with.Clients)
	var stopped, counting atomic.Bool
	var running sync.WaitGroup
	for i := range all {
		do, err := n.operation(with.Operation, uint64(i), with.Size)
		if err != nil {
			return nil, err
		}
		running.Add(1)
		go func(me *client) {
			defer running.Done()
			for !stopped.Load() {
				began := time.Now()
				if me.err = do(); me.err != nil {
					return
				}
				if counting.Load() {
					me.took = append(me.took, time.Since(began))
				}
				me.count.Add(1)
			}
		}(&all[i])
	}
	time.Sleep(seconds(with.WarmUp))
	counting.Store(true)
	before, began := total(all), time.Now()
	time.Sleep(seconds(with.Seconds))
	after, ended := total(all), time.Now()
	stopped.Store(true) // a latency that ends later counts: else the longest would not
	running.Wait()
	return summary(all, float64(after-before)/ended.Sub(began).Seconds())
}

func total(all []client) (sum uint64) {
	for i := range all {
		sum += all[i].count.Load()
	}
	return sum
}

func summary(all []client, perSecond float64) (figures, error) {
	var took []time.Duration
	for i := range all {
		if all[i].err != nil {
			return nil, all[i].err
		}
		took = append(took, all[i].took...)
	}
	found := figures{"submitted": float64(total(all)), "per_second": perSecond}
	if len(took) > 0 {
		slices.Sort(took)
		for name, share := range map[string]float64{"p50_us": 0.5, "p99_us": 0.99, "p999_us": 0.999} {
			rank := int(math.Ceil(share*float64(len(took)))) - 1
			found[name] = float64(took[max(rank, 0)].Nanoseconds()) / 1e3
		}
	}
	return found, nil
}

// burn keeps a core busy until the returned function is called.
func burn() func() {
	var stop atomic.Bool
	go func() {
		for number := uint64(1); !stop.Load(); {
			number = (number*31 + 7) % 1_000_003
		}
	}()
	return func() { stop.Store(true) }
}

type waiter interface{ Error() error }

// outstanding is one producer that keeps a window of commands on their way and waits for the oldest.
// What is counted begins and ends with nothing on its way.
func (n *node) outstanding(with work) (figures, error) {
	own := newCommands(0, with.Size)
	warm, _, err := n.produce(own, with.Window, seconds(with.WarmUp))
	if err != nil {
		return nil, err
	}
	counted, took, err := n.produce(own, with.Window, seconds(with.Seconds))
	if err != nil {
		return nil, err
	}
	return figures{"submitted": float64(warm + counted), "per_second": float64(counted) / took.Seconds()}, nil
}

func (n *node) produce(own *commands, window int, limit time.Duration) (int, time.Duration, error) {
	ring := make([]waiter, window)
	began := time.Now()
	submitted := 0
	for submitted%64 != 0 || time.Since(began) < limit {
		place := submitted % window
		if submitted >= window {
			if err := ring[place].Error(); err != nil {
				return 0, 0, err
			}
		}
		ring[place] = n.raft.Apply(own.next(), 0)
		submitted++
	}
	for done := max(0, submitted-window); done < submitted; done++ {
		if err := ring[done%window].Error(); err != nil {
			return 0, 0, err
		}
	}
	return submitted, time.Since(began), nil
}

// fill submits exactly so many commands, for what depends on how many there were.
func (n *node) fill(with work) (figures, error) {
	own := newCommands(0, with.Size)
	ring := make([]waiter, with.Window)
	began := time.Now()
	for i := 0; i < with.Count+with.Window; i++ {
		place := i % with.Window
		if ring[place] != nil {
			if err := ring[place].Error(); err != nil {
				return nil, err
			}
			ring[place] = nil
		}
		if i < with.Count {
			ring[place] = n.raft.Apply(own.next(), 0)
		}
	}
	return figures{
		"submitted": float64(with.Count), "per_second": float64(with.Count) / time.Since(began).Seconds(),
	}, nil
}
