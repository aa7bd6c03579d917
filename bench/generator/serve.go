package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"net/http"

	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/http3"
	"github.com/quic-go/webtransport-go"
)

// serve is the smallest server on webtransport-go that answers pings.
func serve(port, certificate, key string) error {
	pair, err := tls.LoadX509KeyPair(certificate, key)
	if err != nil {
		return err
	}
	server := webtransport.Server{H3: &http3.Server{
		TLSConfig:  http3.ConfigureTLSConfig(&tls.Config{Certificates: []tls.Certificate{pair}}),
		QUICConfig: &quic.Config{MaxIdleTimeout: idleTimeout},
	}}
	server.H3.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if session, err := server.Upgrade(w, r); err == nil {
			go answerDatagrams(session)
			answerStreams(session)
		}
	})
	address, err := net.ResolveUDPAddr("udp", "127.0.0.1:"+port)
	if err != nil {
		return err
	}
	socket, err := net.ListenUDP("udp", address)
	if err != nil {
		return err
	}
	fmt.Println("ready")
	return server.Serve(socket)
}

func answerDatagrams(session *webtransport.Session) {
	for {
		ping, err := session.ReceiveDatagram(context.Background())
		if err != nil {
			return
		}
		_ = session.SendDatagram(bytes.Replace(ping, []byte("ping"), []byte("pong"), 1))
	}
}

func answerStreams(session *webtransport.Session) {
	for {
		stream, err := session.AcceptStream(context.Background())
		if err != nil {
			return
		}
		go answerStream(stream)
	}
}

func answerStream(stream *webtransport.Stream) {
	defer stream.Close()
	buffer := make([]byte, 4096)
	for {
		n, err := stream.Read(buffer)
		if n > 0 {
			answer := bytes.ReplaceAll(buffer[:n], []byte("ping"), []byte("pong"))
			if _, err := stream.Write(answer); err != nil {
				return
			}
		}
		if err != nil {
			return
		}
	}
}
