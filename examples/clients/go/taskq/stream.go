package taskq

import (
	"context"
	"log"
	"sync/atomic"
	"time"

	pb "example.com/taskq/v1"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// A heartbeat that left so soon after a stream was opened may have been answered before the server saw the stream.
const settling = time.Second

// stream brings attempts; whatever ends it, another is opened.
type stream struct {
	session *session
	bell    chan struct{} // rung when another is to be opened at once
	open    atomic.Pointer[openStream]
}

type openStream struct {
	since  time.Time
	giveUp context.CancelFunc
}

func (s *stream) keepOpen() {
	again := pauses{first: 500 * time.Millisecond, most: 30 * time.Second}
	for {
		isSuperseded, err := s.read(&again)
		s.open.Store(nil)
		if status.Code(err) == codes.NotFound {
			s.session.end()
		}
		if s.session.life.Err() != nil {
			return
		}
		log.Printf("the stream has ended: %v", err)
		pause := time.After(again.next())
		if isSuperseded {
			// Somebody else reads this session's stream. To take it back would start a quarrel; when nobody reads it any
			// more, a heartbeat's answer says so.
			pause = nil
		}
		select {
		case <-pause:
		case <-s.bell:
		case <-s.session.life.Done():
		}
	}
}

func (s *stream) read(again *pauses) (isSuperseded bool, err error) {
	ctx, giveUp := context.WithCancel(s.session.life)
	defer giveUp()
	s.open.Store(&openStream{time.Now(), giveUp})
	events, err := s.session.client.StreamTasks(ctx, &pb.StreamTasksRequest{SessionId: s.session.id})
	if err != nil {
		return false, err
	}
	silence := time.AfterFunc(3*s.session.ping, giveUp)
	defer silence.Stop()
	for {
		event, err := events.Recv()
		if err != nil {
			return isSuperseded, err
		}
		silence.Reset(3 * s.session.ping)
		again.reset()
		switch event := event.Event.(type) {
		case *pb.StreamTasksResponse_Tasks:
			for _, task := range event.Tasks.Tasks {
				s.session.take(task)
			}
		case *pb.StreamTasksResponse_Cancel:
			s.session.stop(event.Cancel.Attempts)
		case *pb.StreamTasksResponse_Superseded:
			isSuperseded = true
		case *pb.StreamTasksResponse_Drain:
			// The server ends this stream and another is opened; or an administrator drains us, and nothing more comes.
			log.Printf("drain: %s", event.Drain.Reason)
		}
	}
}

// reopen opens another stream, unless a heartbeat that was sent then could not know of the one that is open.
func (s *stream) reopen(sent time.Time) {
	if open := s.open.Load(); open == nil {
		ring(s.bell)
	} else if open.since.Add(settling).Before(sent) {
		open.giveUp()
	}
}
