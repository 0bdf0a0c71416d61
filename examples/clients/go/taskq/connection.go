// Package taskq is a scheduler and a processor in Go, to be read and copied; docs/clients.md tells what it does and why.
package taskq

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"os"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/keepalive"
)

// Connect opens a connection to TASKQ_ADDRESS, by TLS when TASKQ_TLS_CA names a CA, with the certificate of
// TASKQ_TLS_CERT and TASKQ_TLS_KEY, and TASKQ_TOKEN in every call.
func Connect() (*grpc.ClientConn, error) {
	address := os.Getenv("TASKQ_ADDRESS")
	if address == "" {
		address = "127.0.0.1:50051"
	}
	options := []grpc.DialOption{
		// A half-open connection is found within 30 s. The server hangs up on who pings more often than every 10 s.
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: 20 * time.Second, Timeout: 10 * time.Second, PermitWithoutStream: true}),
		// A restarted server is found within two seconds.
		grpc.WithConnectParams(grpc.ConnectParams{
			Backoff:           backoff.Config{BaseDelay: 250 * time.Millisecond, Multiplier: 1.6, Jitter: 0.2, MaxDelay: 2 * time.Second},
			MinConnectTimeout: time.Second,
		}),
		// Calls are repeated here, under the same ids; neither DNS nor gRPC should do it a second time.
		grpc.WithDisableRetry(),
		grpc.WithDisableServiceConfig(),
	}
	transport := insecure.NewCredentials()
	if file := os.Getenv("TASKQ_TLS_CA"); file != "" {
		pem, err := os.ReadFile(file)
		if err != nil {
			return nil, err
		}
		pool := x509.NewCertPool()
		if !pool.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("%s holds no certificate", file)
		}
		settings := &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12}
		if cert, key := os.Getenv("TASKQ_TLS_CERT"), os.Getenv("TASKQ_TLS_KEY"); cert != "" || key != "" {
			own, err := tls.LoadX509KeyPair(cert, key)
			if err != nil {
				return nil, fmt.Errorf("TASKQ_TLS_CERT and TASKQ_TLS_KEY: %w", err)
			}
			settings.Certificates = []tls.Certificate{own}
		}
		transport = credentials.NewTLS(settings)
	}
	if token := os.Getenv("TASKQ_TOKEN"); token != "" {
		options = append(options, grpc.WithPerRPCCredentials(bearer{token, isLoopback(address)}))
	}
	return grpc.NewClient(address, append(options, grpc.WithTransportCredentials(transport))...)
}

// A token goes to another machine by TLS alone.
type bearer struct {
	token        string
	mayBePlainly bool
}

func (b bearer) GetRequestMetadata(context.Context, ...string) (map[string]string, error) {
	return map[string]string{"authorization": "Bearer " + b.token}, nil
}

func (b bearer) RequireTransportSecurity() bool { return !b.mayBePlainly }

func isLoopback(address string) bool {
	host, _, _ := net.SplitHostPort(address)
	return host == "localhost" || net.ParseIP(strings.Trim(host, "[]")).IsLoopback()
}
