package main

import (
	"context"
	"fmt"
	"os"
	"time"

	"example.com/taskq-clients/taskq"
	pb "example.com/taskq/v1"
)

func echo(_ context.Context, task *pb.AssignedTask) (*pb.Payload, error) {
	return task.Payload, nil
}

func sleep(ctx context.Context, task *pb.AssignedTask) (*pb.Payload, error) {
	var arguments struct {
		Seconds float64
		File    string
	}
	if err := taskq.FromJSON(task.Payload, &arguments); err != nil {
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
	if err := taskq.FromJSON(task.Payload, &arguments); err != nil {
		return nil, err
	}
	return nil, taskq.Failed{Type: arguments.ErrorType, Message: arguments.Message, Final: !arguments.Retryable}
}

func large(_ context.Context, task *pb.AssignedTask) (*pb.Payload, error) {
	var arguments struct{ Bytes int }
	if err := taskq.FromJSON(task.Payload, &arguments); err != nil {
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
