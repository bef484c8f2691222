// Command pod is what the harness runs in pods of its own: the process that holds a pod's namespaces, and a few small
// programs to look at a cluster from the inside. It is linked statically, so that its image holds nothing else.
package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"
)

const usage = `usage: pod pause | serve ADDRESS | get URL | resolve NAME | write FILE TEXT | read FILE | wait`

// How long one request may take.
const requestTimeout = 5 * time.Second

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "error:", err)
		os.Exit(1)
	}
}

func run(arguments []string) error {
	command, rest := "pause", []string(nil)
	if len(arguments) > 0 {
		command, rest = arguments[0], arguments[1:]
	}
	switch {
	case command == "pause" && len(rest) == 0:
		return pause()
	case command == "wait" && len(rest) == 0:
		return wait()
	case command == "serve" && len(rest) == 1:
		return serve(rest[0])
	case command == "get" && len(rest) == 1:
		return get(rest[0])
	case command == "resolve" && len(rest) == 1:
		return resolve(rest[0])
	case command == "write" && len(rest) == 2:
		return os.WriteFile(rest[0], []byte(rest[1]), 0o644)
	case command == "read" && len(rest) == 1:
		text, err := os.ReadFile(rest[0])
		fmt.Println(string(text))
		return err
	}
	return fmt.Errorf("%s", usage)
}

// Holds the namespaces of a pod until it is told to end, and reaps what others leave behind.
func pause() error {
	signals := make(chan os.Signal, 8)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM, syscall.SIGCHLD)
	for one := range signals {
		if one != syscall.SIGCHLD {
			return nil
		}
		for {
			if pid, err := syscall.Wait4(-1, nil, syscall.WNOHANG, nil); pid <= 0 || err != nil {
				break
			}
		}
	}
	return nil
}

func wait() error {
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM)
	<-signals
	return nil
}

// Answers each request with the name of the pod.
func serve(address string) error {
	name, err := os.Hostname()
	if err != nil {
		return err
	}
	fmt.Println("serving on", address)
	return http.ListenAndServe(address, http.HandlerFunc(func(answer http.ResponseWriter, _ *http.Request) {
		fmt.Fprintln(answer, name)
	}))
}

func get(url string) error {
	client := http.Client{Timeout: requestTimeout}
	answer, err := client.Get(url)
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	if _, err := io.Copy(os.Stdout, answer.Body); err != nil {
		return err
	}
	if answer.StatusCode != http.StatusOK {
		return fmt.Errorf("%s", answer.Status)
	}
	return nil
}

func resolve(name string) error {
	ctx, cancel := context.WithTimeout(context.Background(), requestTimeout)
	defer cancel()
	addresses, err := net.DefaultResolver.LookupHost(ctx, name)
	for _, one := range addresses {
		fmt.Println(one)
	}
	return err
}
