package taskq

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strings"

	pb "example.com/taskq/v1"
)

const (
	maxResultBytes = 256 << 10

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

// outcome runs one attempt and answers what to report of it: nothing once it was told to stop.
func outcome(ctx context.Context, handler Handler, task *pb.AssignedTask) *pb.TaskResult {
	result := &pb.TaskResult{TaskId: task.TaskId, Attempt: task.Attempt}
	payload, err := try(ctx, handler, task)
	switch {
	case ctx.Err() != nil:
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

func try(ctx context.Context, handler Handler, task *pb.AssignedTask) (payload *pb.Payload, err error) {
	defer func() {
		if fault := recover(); fault != nil {
			err = Failed{"Panic", fmt.Sprint(fault), false}
		}
	}()
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
