// Command order enqueues a task, due in a second, and waits for its result: order stew
package main

import (
	"context"
	"fmt"
	"log"
	"os"
	"time"

	"example.com/taskq-clients/taskq"
	pb "example.com/taskq/v1"
	"github.com/google/uuid"
	"google.golang.org/protobuf/types/known/durationpb"
)

func main() {
	dish := "stew"
	if len(os.Args) > 1 {
		dish = os.Args[1]
	}
	if err := order(dish); err != nil {
		log.Fatal(err)
	}
}

func order(dish string) error {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	scheduler, err := taskq.NewScheduler()
	if err != nil {
		return err
	}
	defer scheduler.Close()
	payload, err := taskq.ToJSON(map[string]string{"dish": dish})
	if err != nil {
		return err
	}
	taskID := uuid.Must(uuid.NewV7()).String()
	results, err := scheduler.Enqueue(ctx, &pb.NewTask{
		TaskId: taskID,
		Name:   "kitchen.cook",
		Input:  &pb.NewTask_Payload{Payload: payload},
		When:   &pb.NewTask_Delay{Delay: durationpb.New(time.Second)}, // without it: now
	})
	if err != nil {
		return err
	}
	switch outcome := results[0].Outcome; outcome {
	case pb.EnqueueOutcome_ENQUEUE_OUTCOME_CONFLICT, pb.EnqueueOutcome_ENQUEUE_OUTCOME_REJECTED:
		return fmt.Errorf("not enqueued: %s", outcome)
	}
	task, err := scheduler.Result(ctx, taskID)
	if err != nil {
		return err
	}
	if task.State != pb.TaskState_TASK_STATE_SUCCEEDED {
		return fmt.Errorf("%s: %s", task.State, task.LastFailure.GetMessage())
	}
	fmt.Println(string(task.Result.GetData()))
	return nil
}
