package taskq

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log"
	"os"
	"strings"
	"time"

	pb "example.com/taskq/v1"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

const (
	registerTimeout = 5 * time.Second
	reportTimeout   = 10 * time.Second
	maxResultBytes  = 256 << 10

	// What is kept of a failure, in characters. Sent whole, a message of megabytes would be refused again and again.
	maxTypeLength    = 256
	maxMessageLength = 4096
)

// Handler runs one attempt. It must return soon after ctx is done; what it returns then is not reported.
type Handler func(ctx context.Context, task *pb.AssignedTask) (*pb.Payload, error)

// Failed is an error that says how it is to be reported. Any other is of the type "Error", and may be retried.
type Failed struct {
	Type, Message string
	Final         bool
}

func (f Failed) Error() string { return f.Type + ": " + f.Message }

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
	again := pauses{first: 500 * time.Millisecond, most: 30 * time.Second}
	for ctx.Err() == nil {
		call, cancel := context.WithTimeout(ctx, registerTimeout)
		registered, err := p.client.Register(call, request)
		cancel()
		if err == nil {
			return registered, nil
		}
		if isFirst && isHopeless(err) {
			return nil, err
		}
		log.Printf("not registered: %v", err)
		again.wait(ctx, nil)
	}
	return nil, nil
}

// No waiting mends these.
func isHopeless(err error) bool {
	switch status.Code(err) {
	case codes.InvalidArgument, codes.PermissionDenied, codes.Unauthenticated, codes.Unimplemented:
		return true
	}
	return false
}

// Why an attempt is stopped.
var (
	errLost      = errors.New("the lease is lost: another may run it")
	errCancelled = errors.New("cancelled")
	errDrained   = errors.New("the drain timeout has passed")
)

// run runs one attempt and answers what to report of it; nil when there is nothing to say.
func (p *Processor) run(ctx context.Context, task *pb.AssignedTask) *pb.TaskResult {
	result := &pb.TaskResult{TaskId: task.TaskId, Attempt: task.Attempt}
	payload, err := p.handle(ctx, task)
	switch cause := context.Cause(ctx); {
	case errors.Is(cause, errCancelled):
		result.Outcome = &pb.TaskResult_Cancelled{Cancelled: &pb.Cancelled{}}
	case errors.Is(cause, errDrained):
		result.Outcome = &pb.TaskResult_Released{Released: &pb.Released{}}
	case cause != nil:
		return nil
	case err != nil:
		result.Outcome = failed(err)
	case len(payload.GetData()) > maxResultBytes:
		result.Outcome = failed(Failed{"RESULT_TOO_LARGE", fmt.Sprintf("the result is %d bytes", len(payload.Data)), true})
	default:
		result.Outcome = &pb.TaskResult_Succeeded{Succeeded: &pb.Succeeded{Result: payload}}
	}
	return result
}

func (p *Processor) handle(ctx context.Context, task *pb.AssignedTask) (payload *pb.Payload, err error) {
	defer func() {
		if fault := recover(); fault != nil {
			err = Failed{"Panic", fmt.Sprint(fault), false}
		}
	}()
	handler, isKnown := p.Handlers[task.Name]
	if !isKnown {
		return nil, Failed{"UNKNOWN_NAME", "nobody here runs " + task.Name, false}
	}
	return handler(ctx, task)
}

func failed(err error) *pb.TaskResult_Failed {
	var own Failed
	if !errors.As(err, &own) {
		own = Failed{"Error", err.Error(), false}
	}
	retryable := !own.Final
	return &pb.TaskResult_Failed{Failed: &pb.Failed{
		ErrorType: cmp.Or(cut(own.Type, maxTypeLength), "Error"),
		Message:   cut(own.Message, maxMessageLength),
		Retryable: &retryable,
	}}
}

// cut answers the first characters of a text, as UTF-8: nothing else can be sent.
func cut(text string, most int) string {
	if len(text) > 4*most {
		text = text[:4*most] // no character has more bytes
	}
	characters := []rune(strings.ToValidUTF8(text, "\uFFFD"))
	return string(characters[:min(len(characters), most)])
}
