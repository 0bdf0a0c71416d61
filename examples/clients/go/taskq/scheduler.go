package taskq

import (
	"context"
	"errors"
	"io"
	"log"
	"time"

	pb "example.com/taskq/v1"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

const enqueueTimeout = 10 * time.Second

// Scheduler enqueues tasks and waits for them.
type Scheduler struct {
	client pb.SchedulerServiceClient
	close  func() error
}

// NewScheduler connects; close it when it is no longer needed.
func NewScheduler() (*Scheduler, error) {
	connection, err := Connect()
	if err != nil {
		return nil, err
	}
	return &Scheduler{pb.NewSchedulerServiceClient(connection), connection.Close}, nil
}

// Close ends the connection.
func (s *Scheduler) Close() error { return s.close() }

// Enqueue stores 1 to 1,000 tasks, all of them or none; once it returns they are safe. Each must have a TaskId of the
// caller's own: it makes a repeated call the same tasks.
func (s *Scheduler) Enqueue(ctx context.Context, tasks ...*pb.NewTask) ([]*pb.EnqueueResult, error) {
	again := pauses{first: 100 * time.Millisecond, most: 5 * time.Second}
	for {
		call, cancel := context.WithTimeout(ctx, enqueueTimeout)
		answer, err := s.client.Enqueue(call, &pb.EnqueueRequest{Tasks: tasks})
		cancel()
		if err == nil {
			return answer.Results, nil
		}
		if !isPassing(err) || ctx.Err() != nil {
			return nil, err
		}
		log.Printf("not enqueued yet: %v", err)
		again.wait(ctx)
	}
}

// Result waits until the task is finished, over as many streams as that takes.
func (s *Scheduler) Result(ctx context.Context, taskID string) (*pb.Task, error) {
	again := pauses{first: 100 * time.Millisecond, most: 5 * time.Second}
	for {
		task, err := s.watch(ctx, taskID, &again)
		if err == nil {
			return task, nil
		}
		if !isPassing(err) && !errors.Is(err, io.EOF) || ctx.Err() != nil {
			return nil, err
		}
		log.Printf("not watched any more: %v", err)
		again.wait(ctx)
	}
}

func (s *Scheduler) watch(ctx context.Context, taskID string, again *pauses) (*pb.Task, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := s.client.WatchTask(ctx, &pb.WatchTaskRequest{TaskId: taskID})
	if err != nil {
		return nil, err
	}
	for {
		answer, err := stream.Recv()
		if err != nil {
			return nil, err
		}
		again.reset()
		switch answer.Task.GetState() {
		case pb.TaskState_TASK_STATE_SUCCEEDED, pb.TaskState_TASK_STATE_FAILED, pb.TaskState_TASK_STATE_CANCELLED:
			return answer.Task, nil
		}
	}
}

// isPassing tells what the same call may overcome later.
func isPassing(err error) bool {
	switch status.Code(err) {
	case codes.Unavailable, codes.DeadlineExceeded, codes.ResourceExhausted, codes.Aborted, codes.Internal, codes.Unknown:
		return true
	}
	return false
}
