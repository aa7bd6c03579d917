package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strconv"
	"time"

	"github.com/quic-go/qpack"
	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/quicvarint"
)

const (
	idleTimeout = 10 * time.Minute
	timeout     = time.Second
	pingSize    = 32
)

// HTTP/3 and WebTransport, as far as a ping needs them. webtransport-go's own client is not used:
// it refuses servers without RESET_STREAM_AT.
const (
	controlStream  = 0x00
	headersFrame   = 0x01
	settingsFrame  = 0x04
	bidirectional  = 0x41
	enableConnect  = 0x08
	h3Datagram     = 0x33
	webTransport02 = 0x2b603742
	webTransport14 = 0x14e9cd29
	webTransport15 = 0x2c7cf000
)

// A session is a WebTransport session, the only one on its connection; or a connection without
// HTTP/3, or only a socket.
type session struct {
	conn    *quic.Conn   // nil for a socket
	socket  *net.UDPConn // nil for a connection
	connect *quic.Stream // nil for all but WebTransport
	stream  *quic.Stream // with pings in the mode stream; nil until the first
	header  []byte       // of a stream
	sent    int
	message []byte // a datagram with its header
	start   int    // where the ping begins in message
	kept    int    // bytes in buffer that may begin an answer on the stream
	buffer  []byte
}

// dial connects, and opens a session if the protocol is webtransport.
func dial(protocol, address string) (*session, error) {
	s := &session{buffer: make([]byte, 65536)}
	err := s.dial(protocol, address)
	s.start = len(s.message)
	s.message = append(s.message, bytes.Repeat([]byte("."), pingSize)...)
	copy(s.message[s.start:], "ping")
	return s, err
}

func (s *session) dial(protocol, address string) error {
	if protocol == "udp" {
		remote, err := net.ResolveUDPAddr("udp", address)
		if err != nil {
			return err
		}
		s.socket, err = net.DialUDP("udp", nil, remote)
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	conn, err := quic.DialAddr(
		ctx, address,
		&tls.Config{InsecureSkipVerify: true, ServerName: "localhost", NextProtos: []string{"h3"}},
		&quic.Config{
			EnableDatagrams:                  true,
			EnableStreamResetPartialDelivery: true,
			MaxIdleTimeout:                   idleTimeout,
		},
	)
	if err != nil {
		return err
	}
	s.conn = conn
	if protocol == "quic" {
		return nil
	}
	if err := s.open(ctx, address); err != nil {
		return err
	}
	id := uint64(s.connect.StreamID())
	s.message = quicvarint.Append(nil, id/4)
	s.header = quicvarint.Append(quicvarint.Append(nil, bidirectional), id)
	return nil
}

func (s *session) open(ctx context.Context, address string) error {
	control, err := s.conn.OpenUniStream()
	if err != nil {
		return err
	}
	var settings []byte
	for _, id := range []uint64{enableConnect, h3Datagram, webTransport02, webTransport14, webTransport15} {
		settings = quicvarint.Append(quicvarint.Append(settings, id), 1)
	}
	if _, err := control.Write(append([]byte{controlStream}, frame(settingsFrame, settings)...)); err != nil {
		return err
	}
	// The server's settings come before the request for a session.
	received := make(chan error)
	go s.acceptStreams(received)
	select {
	case err = <-received:
	case <-ctx.Done():
		err = ctx.Err()
	}
	if err != nil {
		return fmt.Errorf("settings: %w", err)
	}
	s.connect, err = s.conn.OpenStream()
	if err != nil {
		return err
	}
	var fields bytes.Buffer
	encoder := qpack.NewEncoder(&fields)
	for _, field := range [][2]string{
		{":method", "CONNECT"},
		{":protocol", "webtransport-h3"},
		{":scheme", "https"},
		{":authority", address},
		{":path", "/ping"},
		{"sec-webtransport-http3-draft02", "1"},
	} {
		if err := encoder.WriteField(qpack.HeaderField{Name: field[0], Value: field[1]}); err != nil {
			return err
		}
	}
	if _, err := s.connect.Write(frame(headersFrame, fields.Bytes())); err != nil {
		return err
	}
	status, err := readStatus(bufio.NewReader(s.connect))
	if err == nil && status != "200" {
		err = errors.New("status " + status)
	}
	return err
}

// acceptStreams reads the server's unidirectional streams, and reports its settings, or an error.
func (s *session) acceptStreams(received chan<- error) {
	for {
		stream, err := s.conn.AcceptUniStream(context.Background())
		if err != nil {
			select {
			case received <- err:
			default:
			}
			return
		}
		go func() {
			reader := bufio.NewReader(stream)
			if kind, err := quicvarint.Read(reader); err == nil && kind == controlStream {
				_, _, err = readFrame(reader)
				received <- err
			}
			_, _ = io.Copy(io.Discard, reader)
		}()
	}
}

func frame(kind uint64, payload []byte) []byte {
	return append(quicvarint.Append(quicvarint.Append(nil, kind), uint64(len(payload))), payload...)
}

func readFrame(reader *bufio.Reader) (uint64, []byte, error) {
	kind, err := quicvarint.Read(reader)
	if err != nil {
		return 0, nil, err
	}
	size, err := quicvarint.Read(reader)
	if err != nil || size > 1<<16 {
		return 0, nil, errors.Join(err, errors.New("no frame"))
	}
	payload := make([]byte, size)
	_, err = io.ReadFull(reader, payload)
	return kind, payload, err
}

func readStatus(reader *bufio.Reader) (string, error) {
	for {
		kind, payload, err := readFrame(reader)
		if err != nil {
			return "", err
		}
		if kind != headersFrame {
			continue
		}
		next := qpack.NewDecoder().Decode(payload)
		for {
			field, err := next()
			if err != nil {
				return "", err
			}
			if field.Name == ":status" {
				return field.Value, nil
			}
		}
	}
}

func (s *session) close() {
	if s.conn == nil {
		_ = s.socket.Close()
	} else {
		_ = s.conn.CloseWithError(0x100, "")
	}
}

// next is the next ping, with a number of its own.
func (s *session) next() []byte {
	s.sent++
	strconv.AppendInt(s.message[s.start+4:s.start+4], int64(100_000_000+s.sent), 10)
	return s.message[s.start:]
}

// ping sends a ping, and waits for its answer.
func (s *session) ping(mode string) error {
	switch mode {
	case "datagram":
		ctx, cancel := context.WithTimeout(context.Background(), timeout)
		defer cancel()
		if err := s.sendDatagram(); err != nil {
			return err
		}
		for {
			if number, err := s.receiveDatagram(ctx); err != nil || number == s.sent {
				return err
			}
		}
	case "stream":
		if err := s.sendStream(); err != nil {
			return err
		}
		_ = s.stream.SetReadDeadline(time.Now().Add(10 * timeout))
		return s.receiveStream()
	case "streams":
		return s.pingStreams()
	}
	return errors.New("unknown mode")
}

// pingWindow keeps datagrams outstanding, and sends one for each answer.
func (s *session) pingWindow(
	times []time.Duration, count, outstanding int,
) ([]time.Duration, int, error) {
	first := s.sent
	starts := make([]time.Time, 0, count)
	lost := 0
	for unanswered := 0; len(times) < count; {
		for unanswered < outstanding && len(times)+unanswered < count {
			starts = append(starts, time.Now())
			if err := s.sendDatagram(); err != nil {
				return times, lost, err
			}
			unanswered++
		}
		ctx, cancel := context.WithTimeout(context.Background(), timeout)
		number, err := s.receiveDatagram(ctx)
		cancel()
		if isTimeout(err) {
			if lost += unanswered; lost > count/2+10*outstanding {
				return times, lost, errors.New("no answers")
			}
			unanswered = 0
		} else if err != nil {
			return times, lost, err
		} else if number > first && number <= s.sent {
			times = append(times, time.Since(starts[number-first-1]))
			unanswered--
		}
	}
	return times, lost, nil
}

func (s *session) sendDatagram() error {
	s.next()
	if s.conn == nil {
		_, err := s.socket.Write(s.message)
		return err
	}
	return s.conn.SendDatagram(s.message)
}

// receiveDatagram returns the number of the ping that is answered; 0 if it is none.
func (s *session) receiveDatagram(ctx context.Context) (int, error) {
	var data []byte
	var err error
	if s.conn == nil {
		deadline, _ := ctx.Deadline()
		_ = s.socket.SetReadDeadline(deadline)
		var n int
		n, err = s.socket.Read(s.buffer)
		data = s.buffer[:n]
	} else {
		data, err = s.conn.ReceiveDatagram(ctx)
	}
	if err != nil {
		return 0, err
	}
	if len(data) != len(s.message) || !bytes.Equal(data[s.start:s.start+4], []byte("pong")) {
		return 0, fmt.Errorf("not an answer: %q", data)
	}
	number, err := strconv.Atoi(string(data[s.start+4 : s.start+13]))
	return number - 100_000_000, err
}

func (s *session) openStream() (*quic.Stream, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 10*timeout)
	defer cancel()
	return s.conn.OpenStreamSync(ctx)
}

func (s *session) sendStream() error {
	message := s.next()
	if s.stream == nil {
		stream, err := s.openStream()
		if err != nil {
			return err
		}
		s.stream = stream
		message = slices.Concat(s.header, message)
	}
	_, err := s.stream.Write(message)
	return err
}

// receiveStream waits for an answer. A server may answer with more bytes than "pong", which may
// come with the answer to the next ping.
func (s *session) receiveStream() error {
	for {
		n, err := s.stream.Read(s.buffer[s.kept:])
		if err != nil {
			return err
		}
		data := s.buffer[:s.kept+n]
		if bytes.Contains(data, []byte("pong")) {
			s.kept = 0
			return nil
		}
		s.kept = copy(s.buffer, data[max(0, len(data)-3):])
	}
}

func (s *session) pingStreams() error {
	stream, err := s.openStream()
	if err != nil {
		return err
	}
	if _, err := stream.Write(slices.Concat(s.header, s.next())); err != nil {
		return err
	}
	if err := stream.Close(); err != nil {
		return err
	}
	_ = stream.SetReadDeadline(time.Now().Add(10 * timeout))
	size := 0
	for {
		n, err := stream.Read(s.buffer[size:])
		size += n
		if err == io.EOF {
			break
		} else if err != nil {
			return err
		}
	}
	if !bytes.HasPrefix(s.buffer[:size], []byte("pong")) {
		return fmt.Errorf("not an answer: %q", s.buffer[:size])
	}
	return nil
}
