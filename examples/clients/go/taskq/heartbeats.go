package taskq

import (
	"context"
	"log"
	"time"

	pb "example.com/taskq/v1"
)

// heartbeats tell the server that this processor lives, and what it holds.
type heartbeats struct {
	session *session
	bell    chan struct{} // rung when the next is due at once
}

func (h *heartbeats) keepSending() {
	s := h.session
	again := pauses{first: 100 * time.Millisecond, most: min(time.Second, s.interval)}
	pause := s.interval
	for {
		select {
		case <-time.After(pause):
		case <-h.bell:
		case <-s.life.Done():
			return
		}
		if err := h.send(); err == nil {
			again.reset()
			pause = s.interval
		} else if s.life.Err() == nil {
			log.Printf("heartbeat failed: %v", err)
			pause = again.next()
		}
	}
}

func (h *heartbeats) send() error {
	s, sent := h.session, time.Now()
	ctx, cancel := context.WithTimeout(s.life, s.interval)
	defer cancel()
	request := &pb.HeartbeatRequest{SessionId: s.id, InFlight: s.inFlight(), Draining: s.isDraining.Load()}
	answer, err := s.heart.Heartbeat(ctx, request)
	if err != nil {
		return err
	}
	s.stop(answer.Lost)
	s.stop(answer.Cancelled)
	switch answer.Stream {
	case pb.StreamState_STREAM_STATE_REREGISTER:
		s.end()
	case pb.StreamState_STREAM_STATE_REOPEN:
		s.stream.reopen(sent)
	}
	return nil
}
