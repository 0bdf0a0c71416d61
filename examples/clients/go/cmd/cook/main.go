// Command cook runs tasks until SIGTERM.
package main

import (
	"context"
	"log"
	"os/signal"
	"syscall"
	"time"

	"example.com/taskq-clients/taskq"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	processor := taskq.Processor{Handlers: handlers, Limit: 100, DrainTimeout: 30 * time.Second}
	if err := processor.Run(ctx); err != nil {
		log.Fatal(err)
	}
}
