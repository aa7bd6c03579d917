// The load generator of the benchmarks, and webtransport-go's server beside it.
//
//	generator load PORT                    pings the server on 127.0.0.1, as its standard input says
//	generator serve PORT CERTIFICATE KEY   prints `ready`, and answers pings
package main

import (
	"fmt"
	"os"
)

func main() {
	var err error
	switch {
	case len(os.Args) == 3 && os.Args[1] == "load":
		err = load(os.Args[2], os.Stdin, os.Stdout)
	case len(os.Args) == 5 && os.Args[1] == "serve":
		err = serve(os.Args[2], os.Args[3], os.Args[4])
	default:
		err = fmt.Errorf("load PORT, or serve PORT CERTIFICATE KEY")
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "generator:", err)
		os.Exit(1)
	}
}
