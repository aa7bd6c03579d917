// The load generator of the benchmarks, and webtransport-go's server beside it.
//
//	generator load webtransport|quic|udp PORT   pings on 127.0.0.1, as standard input says
//	generator serve PORT CERTIFICATE KEY        answers pings
//
// Both print "ready".
package main

import (
	"fmt"
	"os"
)

func main() {
	var err error
	switch {
	case len(os.Args) == 4 && os.Args[1] == "load":
		err = load(os.Args[2], os.Args[3], os.Stdin, os.Stdout)
	case len(os.Args) == 5 && os.Args[1] == "serve":
		err = serve(os.Args[2], os.Args[3], os.Args[4])
	default:
		err = fmt.Errorf("load webtransport|quic|udp PORT, or serve PORT CERTIFICATE KEY")
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "generator:", err)
		os.Exit(1)
	}
}
