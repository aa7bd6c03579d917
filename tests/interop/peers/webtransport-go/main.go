// A client on webtransport-go: it pings a server in a datagram and on a stream, and says "ok".
package main

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/quic-go/quic-go"
	"github.com/quic-go/webtransport-go"
)

func main() {
	if err := ping(os.Args[1]); err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	fmt.Println("ok")
}

func ping(url string) error {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	transport := webtransport.Transport{
		TLSClientConfig: &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"h3"}},
		QUICConfig: &quic.Config{
			EnableDatagrams: true, EnableStreamResetPartialDelivery: true,
		},
	}
	_, session, err := transport.Dial(ctx, url, nil)
	if err != nil {
		return err
	}
	defer session.CloseWithError(0, "")
	if err := session.SendDatagram([]byte("ping datagram")); err != nil {
		return err
	}
	pong, err := session.ReceiveDatagram(ctx)
	if err != nil || string(pong) != "pong datagram" {
		return fmt.Errorf("datagram: %q, %w", pong, err)
	}
	stream, err := session.OpenStreamSync(ctx)
	if err != nil {
		return err
	}
	if _, err := stream.Write([]byte("ping stream")); err != nil {
		return err
	}
	if err := stream.Close(); err != nil {
		return err
	}
	answer, err := io.ReadAll(stream)
	if err != nil || string(answer) != "pong stream" {
		return fmt.Errorf("stream: %q, %w", answer, err)
	}
	return nil
}
