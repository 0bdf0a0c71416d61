package taskq

import (
	"context"
	"fmt"
	"log"
	"os"
	"time"

	pb "example.com/taskq/v1"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

const registerTimeout = 5 * time.Second

// Processor runs tasks.
type Processor struct {
	Handlers     map[string]Handler
	Limit        int           // the most tasks at a time
	DrainTimeout time.Duration // how long running tasks may take to end once it is told to stop

	client, heart pb.ProcessorServiceClient
}

// Run registers, and runs tasks until ctx is done; then it takes nothing more, lets what runs end, reports it and
// unregisters. A session that the server has ended is followed by another.
func (p *Processor) Run(ctx context.Context) error {
	// Heartbeats have a connection of their own: they never wait behind tasks and results.
	for _, client := range []*pb.ProcessorServiceClient{&p.client, &p.heart} {
		connection, err := Connect()
		if err != nil {
			return err
		}
		defer connection.Close()
		*client = pb.NewProcessorServiceClient(connection)
	}
	for isFirst := true; ctx.Err() == nil; isFirst = false {
		registered, err := p.register(ctx, isFirst)
		if err != nil {
			return err
		}
		if registered != nil {
			newSession(p, registered).live(ctx)
		}
	}
	return nil
}

// register tries until it is heard; nil when it is told to stop before.
func (p *Processor) register(ctx context.Context, isFirst bool) (*pb.RegisterResponse, error) {
	host, _ := os.Hostname()
	request := &pb.RegisterRequest{
		ProcessorName: fmt.Sprintf("%.100s-%d", host, os.Getpid()),
		MaxInFlight:   int32(p.Limit),
		Client:        "taskq-go-example/1",
	}
	for name := range p.Handlers {
		request.Capabilities = append(request.Capabilities, &pb.Capability{Name: name})
	}
	for again := (pauses{first: 500 * time.Millisecond, most: 30 * time.Second}); ctx.Err() == nil; again.wait(ctx) {
		call, cancel := context.WithTimeout(ctx, registerTimeout)
		registered, err := p.client.Register(call, request)
		cancel()
		if err == nil {
			log.Printf("registered %d names: session %s", len(p.Handlers), registered.SessionId)
			return registered, nil
		}
		if isFirst && isHopeless(err) {
			return nil, err
		}
		log.Printf("not registered: %v", err)
	}
	return nil, nil
}

// No waiting mends these. Who has worked before goes on nevertheless: somebody may be mending the server.
func isHopeless(err error) bool {
	switch status.Code(err) {
	case codes.InvalidArgument, codes.PermissionDenied, codes.Unauthenticated, codes.Unimplemented:
		return true
	}
	return false
}
