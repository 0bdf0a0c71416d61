package main

import (
	"context"
	"fmt"

	"example.com/taskq-clients/taskq"
	pb "example.com/taskq/v1"
)

// What this program runs. Yours go here.
var handlers = map[string]taskq.Handler{
	"kitchen.cook": cook,

	// For `taskq conformance`; leave them out of your own.
	"conformance.echo":  echo,
	"conformance.sleep": sleep,
	"conformance.fail":  fail,
	"conformance.large": large,
}

func cook(ctx context.Context, task *pb.AssignedTask) (*pb.Payload, error) {
	var order struct{ Dish string }
	if err := taskq.FromJSON(task.Payload, &order); err != nil {
		return nil, err
	}
	return taskq.ToJSON(fmt.Sprintf("%s is served, attempt %d", order.Dish, task.Attempt))
}
