// Command processor cooks, and runs the tasks of `taskq conformance`, until SIGTERM.
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"log"
	"os"
	"os/signal"
	"syscall"
	"time"

	"example.com/taskq-clients/taskq"
	pb "example.com/taskq/v1"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	processor := taskq.Processor{
		Limit:        100,
		DrainTimeout: 30 * time.Second,
		Handlers: map[string]taskq.Handler{
			"kitchen.cook":      cook,
			"conformance.echo":  echo,
			"conformance.sleep": sleep,
			"conformance.fail":  fail,
			"conformance.large": large,
		},
	}
	if err := processor.Run(ctx); err != nil {
		log.Fatal(err)
	}
}

func cook(_ context.Context, task *pb.AssignedTask) (*pb.Payload, error) {
	var order struct{ Dish string }
	if err := json.Unmarshal(task.Payload.Data, &order); err != nil {
		return nil, taskq.Failed{Type: "PAYLOAD_UNDECODABLE", Message: err.Error(), Final: true}
	}
	served, err := json.Marshal(fmt.Sprintf("%s is served, attempt %d", order.Dish, task.Attempt))
	return &pb.Payload{Data: served, ContentType: "application/json"}, err
}

func echo(_ context.Context, task *pb.AssignedTask) (*pb.Payload, error) {
	return task.Payload, nil
}

func sleep(ctx context.Context, task *pb.AssignedTask) (*pb.Payload, error) {
	var arguments struct {
		Seconds float64
		File    string
	}
	if err := json.Unmarshal(task.Payload.Data, &arguments); err != nil {
		return nil, err
	}
	if err := note(arguments.File, "begin"); err != nil {
		return nil, err
	}
	select {
	case <-ctx.Done():
		return nil, ctx.Err()
	case <-time.After(time.Duration(arguments.Seconds * float64(time.Second))):
		return nil, note(arguments.File, "end")
	}
}

func fail(_ context.Context, task *pb.AssignedTask) (*pb.Payload, error) {
	var arguments struct {
		ErrorType string `json:"error_type"`
		Message   string
		Retryable bool
	}
	if err := json.Unmarshal(task.Payload.Data, &arguments); err != nil {
		return nil, err
	}
	return nil, taskq.Failed{Type: arguments.ErrorType, Message: arguments.Message, Final: !arguments.Retryable}
}

func large(_ context.Context, task *pb.AssignedTask) (*pb.Payload, error) {
	var arguments struct{ Bytes int }
	if err := json.Unmarshal(task.Payload.Data, &arguments); err != nil {
		return nil, err
	}
	return &pb.Payload{Data: make([]byte, arguments.Bytes)}, nil
}

func note(file, word string) error {
	notes, err := os.OpenFile(file, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer notes.Close()
	_, err = fmt.Fprintln(notes, word)
	return err
}
