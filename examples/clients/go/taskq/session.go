package taskq

import (
	"context"
	"log"
	"sync"
	"sync/atomic"
	"time"

	pb "example.com/taskq/v1"
)

const unregisterTimeout = 3 * time.Second

type key struct {
	taskID  string
	attempt int32
}

// session is one registration. Its stream brings attempts, its heartbeats keep them and its reports end them, until
// the server ends the session or the processor is told to stop.
type session struct {
	*Processor
	id             string
	interval, ping time.Duration
	life           context.Context // done once the session has ended; so is that of each attempt
	end            context.CancelFunc
	isDraining     atomic.Bool
	stream         stream
	heartbeats     heartbeats
	reports        reports

	lock sync.Mutex
	held map[key]context.CancelFunc // each attempt, from its arrival until its report is answered
}

func newSession(p *Processor, registered *pb.RegisterResponse) *session {
	s := &session{
		Processor: p,
		id:        registered.SessionId,
		interval:  registered.HeartbeatInterval.AsDuration(),
		ping:      registered.PingInterval.AsDuration(),
		held:      map[key]context.CancelFunc{},
	}
	s.life, s.end = context.WithCancel(context.Background())
	s.stream = stream{session: s, bell: make(chan struct{}, 1)}
	s.heartbeats = heartbeats{session: s, bell: make(chan struct{}, 1)}
	s.reports = reports{session: s, results: make(chan *pb.TaskResult)}
	return s
}

// live returns when the server has ended the session, or when stop is done and everything is reported.
func (s *session) live(stop context.Context) {
	defer s.end()
	go s.stream.keepOpen()
	go s.heartbeats.keepSending()
	go s.reports.keepSending()
	select {
	case <-s.life.Done():
		log.Printf("session %s has ended", s.id)
	case <-stop.Done():
		s.drain()
	}
}

// take begins an attempt, unless it is held already: a new stream may bring again what the one before has brought.
func (s *session) take(task *pb.AssignedTask) {
	s.lock.Lock()
	defer s.lock.Unlock()
	attempt := key{task.TaskId, task.Attempt}
	if _, isHeld := s.held[attempt]; isHeld {
		return
	}
	ctx, stop := context.WithCancel(s.life)
	s.held[attempt] = stop
	go func() {
		defer stop()
		if s.isDraining.Load() {
			released := &pb.TaskResult_Released{Released: &pb.Released{}}
			s.reports.add(&pb.TaskResult{TaskId: task.TaskId, Attempt: task.Attempt, Outcome: released})
		} else if result := outcome(ctx, s.Handlers[task.Name], task); result != nil {
			s.reports.add(result)
		}
	}()
}

// stop ends attempts that were cancelled, or that another may run: nothing that is reported of them counts any more.
func (s *session) stop(attempts []*pb.AttemptRef) {
	s.lock.Lock()
	defer s.lock.Unlock()
	for _, each := range attempts {
		attempt := key{each.TaskId, each.Attempt}
		if stop, isHeld := s.held[attempt]; isHeld {
			stop()
			delete(s.held, attempt)
		}
	}
}

// letGo ends attempts, whatever the answer was: LEASE_LOST is as final as ACCEPTED.
func (s *session) letGo(answers []*pb.ReportAnswer) {
	s.lock.Lock()
	defer s.lock.Unlock()
	for _, answer := range answers {
		delete(s.held, key{answer.TaskId, answer.Attempt})
	}
}

func (s *session) inFlight() (all []*pb.InFlight) {
	s.lock.Lock()
	defer s.lock.Unlock()
	for attempt := range s.held {
		all = append(all, &pb.InFlight{TaskId: attempt.taskID, Attempt: attempt.attempt})
	}
	return all
}

// drain takes nothing more, waits until everything that is held is reported, and unregisters. What is still held then
// the server gives to another.
func (s *session) drain() {
	s.isDraining.Store(true)
	ring(s.heartbeats.bell)
	until := time.Now().Add(s.DrainTimeout)
	for len(s.inFlight()) > 0 && time.Now().Before(until) && s.life.Err() == nil {
		time.Sleep(20 * time.Millisecond)
	}
	ctx, cancel := context.WithTimeout(context.Background(), unregisterTimeout)
	defer cancel()
	if _, err := s.client.Unregister(ctx, &pb.UnregisterRequest{SessionId: s.id}); err != nil {
		log.Printf("unregister failed: %v", err) // the server ends the session by itself, after a lease
	}
}

// ring wakes whoever waits for the bell, now or next.
func ring(bell chan<- struct{}) {
	select {
	case bell <- struct{}{}:
	default:
	}
}
