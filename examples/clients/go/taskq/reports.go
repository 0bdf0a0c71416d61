package taskq

import (
	"context"
	"log"
	"time"

	pb "example.com/taskq/v1"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
)

const (
	reportTimeout = 10 * time.Second
	// A request that has so much takes no more; with the largest result it stays below 1 MiB.
	fullBytes = 512 << 10
)

// reports are sent until they are answered: many in one request, one request at a time.
type reports struct {
	session *session
	results chan *pb.TaskResult
}

func (r *reports) add(result *pb.TaskResult) {
	select {
	case r.results <- result:
	case <-r.session.life.Done(): // nobody would take it any more
	}
}

func (r *reports) keepSending() {
	for {
		select {
		case result := <-r.results:
			r.send(r.batch(result))
		case <-r.session.life.Done():
			return
		}
	}
}

// batch adds what else waits.
func (r *reports) batch(first *pb.TaskResult) []*pb.TaskResult {
	batch := []*pb.TaskResult{first}
	for size := proto.Size(first); size < fullBytes; {
		select {
		case result := <-r.results:
			batch, size = append(batch, result), size+proto.Size(result)
		default:
			return batch
		}
	}
	return batch
}

func (r *reports) send(batch []*pb.TaskResult) {
	s := r.session
	for again := (pauses{first: 100 * time.Millisecond, most: 5 * time.Second}); s.life.Err() == nil; again.wait(s.life) {
		ctx, cancel := context.WithTimeout(s.life, reportTimeout)
		answer, err := s.client.ReportResult(ctx, &pb.ReportResultRequest{SessionId: s.id, Results: batch})
		cancel()
		if err == nil {
			s.letGo(answer.Answers)
			return
		}
		log.Printf("%d reports are not answered: %v", len(batch), err)
		if status.Code(err) != codes.InvalidArgument {
			continue
		}
		// One of them is refused for good: find it, and report it as failed.
		if len(batch) > 1 {
			for _, result := range batch {
				r.send([]*pb.TaskResult{result})
			}
			return
		}
		batch[0].Outcome = failed(Failed{"REPORT_REFUSED", err.Error(), true})
	}
}
