package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"time"
)

// A command is a line of JSON on standard input; each gets one line of JSON as its answer.
type command struct {
	Do          string `json:"do"` // connect, ping or disconnect
	Mode        string `json:"mode"`
	Count       int    `json:"count"`
	Sessions    int    `json:"sessions"`    // ping these in turn; 0 means all
	Outstanding int    `json:"outstanding"` // on one session; 0 means 1
	Pause       int    `json:"pause"`       // microseconds before each ping
}

// A result has times in nanoseconds: of the whole command, and of one round trip or handshake.
type result struct {
	Count    int    `json:"count"`
	Lost     int    `json:"lost"`
	Sent     uint64 `json:"sent"` // packets, while pinging
	Received uint64 `json:"received"`
	Wall     int64  `json:"wall"`
	P50      int64  `json:"p50"`
	P99      int64  `json:"p99"`
}

// A generator has sessions with one server, each on its own connection.
type generator struct {
	protocol string // webtransport, quic or udp
	address  string
	sessions []*session
}

// load runs the commands until the input ends.
func load(protocol, port string, input io.Reader, output io.Writer) error {
	g := generator{protocol: protocol, address: "127.0.0.1:" + port}
	if _, err := fmt.Fprintln(output, "ready"); err != nil {
		return err
	}
	lines := bufio.NewScanner(input)
	encoder := json.NewEncoder(output)
	for lines.Scan() {
		var c command
		if err := json.Unmarshal(lines.Bytes(), &c); err != nil {
			return err
		}
		r, err := g.do(c)
		if err != nil {
			return fmt.Errorf("%s %s: %w", c.Do, c.Mode, err)
		}
		if err := encoder.Encode(r); err != nil {
			return err
		}
	}
	return lines.Err()
}

func (g *generator) do(c command) (result, error) {
	times := make([]time.Duration, 0, c.Count)
	start := time.Now()
	var r result
	var err error
	switch c.Do {
	case "connect":
		times, err = g.connect(times, c.Count)
	case "disconnect":
		g.disconnect(c.Count)
	case "ping":
		sessions := g.sessions
		if c.Sessions > 0 {
			sessions = sessions[:c.Sessions]
		}
		sent, received := packets(sessions)
		if c.Outstanding > 1 {
			times, r.Lost, err = sessions[0].pingWindow(times, c.Count, c.Outstanding)
		} else {
			pause := time.Duration(c.Pause) * time.Microsecond
			times, r.Lost, err = ping(times, sessions, c.Mode, c.Count, pause)
		}
		r.Sent, r.Received = packets(sessions)
		r.Sent, r.Received = r.Sent-sent, r.Received-received
	default:
		err = errors.New("unknown command")
	}
	r.Count, r.Wall = len(times), time.Since(start).Nanoseconds()
	if len(times) > 0 {
		slices.Sort(times)
		r.P50 = times[len(times)/2].Nanoseconds()
		r.P99 = times[len(times)*99/100].Nanoseconds()
	}
	return r, err
}

// connect adds sessions, one after another.
func (g *generator) connect(times []time.Duration, count int) ([]time.Duration, error) {
	for range count {
		start := time.Now()
		s, err := dial(g.protocol, g.address)
		if err != nil {
			return times, err
		}
		times = append(times, time.Since(start))
		g.sessions = append(g.sessions, s)
	}
	return times, nil
}

// disconnect closes the newest sessions.
func (g *generator) disconnect(count int) {
	kept := len(g.sessions) - count
	for _, s := range g.sessions[kept:] {
		s.close()
	}
	g.sessions = g.sessions[:kept]
}

func packets(sessions []*session) (sent, received uint64) {
	for _, s := range sessions {
		if s.conn == nil {
			continue
		}
		stats := s.conn.ConnectionStats()
		sent += stats.PacketsSent
		received += stats.PacketsReceived
	}
	return sent, received
}

// ping sends pings on each session in turn, one at a time. A datagram that is not answered within a
// second is lost, and another one sent in its place.
func ping(
	times []time.Duration, sessions []*session, mode string, count int, pause time.Duration,
) ([]time.Duration, int, error) {
	lost := 0
	for i := 0; len(times) < count; i++ {
		time.Sleep(pause)
		start := time.Now()
		err := sessions[i%len(sessions)].ping(mode)
		if mode == "datagram" && isTimeout(err) {
			if lost++; lost > count/2+10 {
				return times, lost, errors.New("no answers")
			}
			continue
		} else if err != nil {
			return times, lost, err
		}
		times = append(times, time.Since(start))
	}
	return times, lost, nil
}

func isTimeout(err error) bool {
	return errors.Is(err, context.DeadlineExceeded) || errors.Is(err, os.ErrDeadlineExceeded)
}
